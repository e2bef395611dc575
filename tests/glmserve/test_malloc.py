"""A worker's memory: buffers are used again, and what starting took is given back."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource
import numpy as np
from glmserve.system import malloc
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
malloc.keep_buffers()
def photo(): [np.ones(900_000, np.uint8) for _ in range(6)]
for _ in range(5): photo()
before = faults()
for _ in range(50): photo()
print((faults() - before) / 50)
"""
GIVEN_BACK = """
from pathlib import Path
from glmserve.system import malloc
def resident_mib(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1024**2
words = [str(i) * 200 for i in range(100_000)]  # too large for Python's own arenas, too small for pages of their own
pin = words[::100]  # a little of it stays, all over the place
del words
before = resident_mib()
malloc.trim_after_start()
print(before - resident_mib())
"""


def run(code: str) -> float:
    return float(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=True).stdout)


def test_the_buffers_of_a_photo_are_not_faulted_in_again_and_again() -> None:
    assert run(FAULTS) < 20  # it was 1,300


def test_what_is_free_is_given_back() -> None:
    assert run(GIVEN_BACK) > 0
