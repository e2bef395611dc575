"""How Triton's C library handles memory: glibc's own variables, read once when a process starts.

Buffers that pictures pass through are used again, as in the gateway's workers. Weights lie in pages of 2 MiB where the
kernel has them: a decode step reads every weight, and with pages of 4 KiB it must find out after every 64 lines of
cache where the next page lies, in a virtual machine through two tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from glmserve.limits import LARGEST_KEPT_BUFFER_BYTES, MOST_FREE_BYTES

_TUNABLES = "GLIBC_TUNABLES"
_LARGE_PAGES = "glibc.malloc.hugetlb"
_KEPT = {"MALLOC_TRIM_THRESHOLD_": MOST_FREE_BYTES, "MALLOC_MMAP_THRESHOLD_": LARGEST_KEPT_BUFFER_BYTES}


def memory_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to start Triton with; what `environment` says about them already is left as it is."""
    tunables = environment.get(_TUNABLES, "")
    if _LARGE_PAGES not in tunables:
        tunables = ":".join(filter(None, (tunables, f"{_LARGE_PAGES}=1")))  # 1: madvise, no reserved pages
    return {name: environment.get(name, str(value)) for name, value in _KEPT.items()} | {_TUNABLES: tunables}
