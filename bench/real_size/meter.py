"""Time, memory and load of a step: the peaks of all processes that this one has started, sampled as it runs."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from bench.records import Row, rounded
from bench.usage import descendants, pss_bytes, rss_bytes

_EVERY_S = 1.0
_PSS_EVERY = 5
"""Samples from one PSS to the next: the kernel walks every page for it, and the process waits meanwhile."""
_STOP_S = 30.0
_READ_BYTES = 256 * 1024**2
_READS = 4


class Meter:
    """Measures from `with` to its end. One thread of its own samples; `row()` is read afterwards."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._resident = self._proportional = 0
        self._began_s = self._seconds = 0.0
        self._load: list[float] = []

    def __enter__(self) -> Meter:
        self._load.append(rounded(os.getloadavg()[0]))
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds = time.monotonic() - self._began_s
        self._load.append(rounded(os.getloadavg()[0]))
        self._ended.set()
        self._thread.join(_STOP_S)

    def row(self) -> Row:
        """Seconds, the load of the machine at the beginning and at the end (its mean of a minute), and the peaks in
        bytes: RSS counts a page once for each process that has it mapped, PSS once."""
        return {
            "seconds": rounded(self._seconds),
            "load": self._load,
            "peak_rss_bytes": self._resident,
            "peak_pss_bytes": self._proportional,
        }

    def _watch(self) -> None:
        samples = 0
        while not self._ended.wait(_EVERY_S):
            processes = descendants(os.getpid())
            self._resident = max(self._resident, rss_bytes(processes))
            if samples % _PSS_EVERY == 0:
                self._proportional = max(self._proportional, pss_bytes(processes))
            samples += 1


def used_bytes(folder: Path) -> int:
    """What a folder takes on the disk; a file with several links counts once."""
    found = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:  # renamed in the meantime
            continue
        found[status.st_ino] = 512 * status.st_blocks
    return sum(found.values())


def bandwidth_bytes_per_s(threads: int) -> float:
    """How fast this many threads read memory together, each its own array of 256 MB; the best of four."""
    arrays = [np.ones(_READ_BYTES // 4, np.float32) for _ in range(threads)]
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_READS):
            began_s = time.perf_counter()
            list(pool.map(np.max, arrays))
            times.append(time.perf_counter() - began_s)
    return threads * _READ_BYTES / min(times)
