"""How this project tunes glibc's malloc: for its own process, and for a Triton that it starts.

glibc returns a freed megabyte to the kernel at once, and gets zeroed pages for the next one. A photo passes through
half a dozen such buffers, so a request cost 1,500 page faults, a quarter of its processor time.

Triton's weights lie in pages of 2 MiB where the kernel has them: a decode step reads every weight, and with pages of
4 KiB the processor looks up an address after every 64 cache lines, in a virtual machine through two tables.

Where the C library is not glibc, none of this does anything.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping

from glmserve.limits import LARGEST_KEPT_BUFFER_BYTES, MOST_FREE_BYTES

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of <malloc.h>
_ARENAS = 2
_TUNABLES = "GLIBC_TUNABLES"
_LARGE_PAGES = "glibc.malloc.hugetlb"


def keep_buffers() -> None:
    """Lets this process reuse its buffers; called once, before it has many threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_M_ARENA_MAX, _ARENAS),
            (_M_MMAP_THRESHOLD, LARGEST_KEPT_BUFFER_BYTES),
            (_M_TRIM_THRESHOLD, MOST_FREE_BYTES),
        ):
            mallopt(option, value)


def trim() -> None:
    """Returns free memory to the kernel: reading a tokenizer of 150,000 words leaves 200 MB."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def trim_after_start() -> None:
    """The same for a process that has just started, whose objects stay and are never collected again."""
    gc.collect()
    gc.freeze()
    trim()


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What `keep_buffers` does, and large pages, as variables that glibc reads when a program starts.

    What `environment` says about them already is left as it is.
    """
    kept = {"MALLOC_TRIM_THRESHOLD_": MOST_FREE_BYTES, "MALLOC_MMAP_THRESHOLD_": LARGEST_KEPT_BUFFER_BYTES}
    tunables = environment.get(_TUNABLES, "")
    if _LARGE_PAGES not in tunables:
        tunables = ":".join(filter(None, (tunables, f"{_LARGE_PAGES}=1")))  # 1: madvise, no reserved pages
    return {name: environment.get(name, str(value)) for name, value in kept.items()} | {_TUNABLES: tunables}
