"""How a worker keeps its memory: buffers of pictures are used again, and what starting took is given back.

glibc returns a freed megabyte to the kernel at once and is handed zeroed pages for the next one. A photo passes through
half a dozen such buffers, so a request cost 1,500 page faults, a quarter of its processor time.
"""

from __future__ import annotations

import ctypes
import gc

from glmserve.limits import LARGEST_KEPT_BUFFER_BYTES, MOST_FREE_BYTES
from glmserve.system.malloc_trim import give_back_freed

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of <malloc.h>
_ARENAS = 2


def keep_buffers() -> None:
    """For this process, once, before it has many threads; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_M_ARENA_MAX, _ARENAS),
            (_M_MMAP_THRESHOLD, LARGEST_KEPT_BUFFER_BYTES),
            (_M_TRIM_THRESHOLD, MOST_FREE_BYTES),
        ):
            mallopt(option, value)


def give_back() -> None:
    """After starting, which has read a tokenizer."""
    gc.collect()
    gc.freeze()  # what is there now stays, so later collections need not look at it
    give_back_freed()
