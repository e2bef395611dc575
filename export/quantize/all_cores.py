"""Rounds different rows of one weight on all cores; numpy lets go of Python's lock while it computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from glmserve.system.cpu_count import cores


def on_all_cores(work: Callable[[slice], None], rows: int, at_once: int) -> None:
    """Calls `work` for every `at_once` rows, on as many threads as there are cores; each writes its own rows, so the
    result does not depend on their order. Raises what `work` raises."""
    parts = [slice(begin, begin + at_once) for begin in range(0, rows, at_once)]
    threads = min(cores(), len(parts))
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass
