"""What Triton's C library is told about memory, and what a kernel makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.usage import descendants
from glmserve.system import malloc
from launcher.triton_server import TritonServer

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HAS_LARGE_PAGES = LARGE_PAGES.exists() and "[madvise]" in LARGE_PAGES.read_text("ascii")
needs_large_pages = pytest.mark.skipif(not HAS_LARGE_PAGES, reason="this kernel gives large pages always, or never")


def test_what_an_operator_says_stands() -> None:
    given = {"MALLOC_TRIM_THRESHOLD_": "1", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}
    told = malloc.variables(given)
    assert told["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert told["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=4:glibc.malloc.hugetlb=1"
    refused = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert malloc.variables(refused)["GLIBC_TUNABLES"] == refused["GLIBC_TUNABLES"]


@needs_large_pages
@pytest.mark.triton
def test_tritons_stubs_have_large_pages(triton: TritonServer) -> None:
    assert triton.pid is not None
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text("ascii") for pid in descendants(triton.pid)]
    assert [size for rollup in rollups for size in re.findall(r"AnonHugePages: +([1-9]\d*) kB", rollup)]
