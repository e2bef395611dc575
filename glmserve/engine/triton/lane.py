"""Requests that run beside one another, as many as have a place."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore


class Lane:
    """Runs so many requests at a time, and takes no more than have a place."""

    def __init__(self, name: str, places: int, threads: int) -> None:
        self._free = BoundedSemaphore(places)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def enter(self) -> bool:
        """Takes a place, where there is one."""
        return self._free.acquire(blocking=False)

    def run(self, work: Callable[[Callable[[], None]], None]) -> None:
        """Runs `work` in the place that was taken, and tells it how to give that back."""
        self._pool.submit(work, self._free.release)

    def close(self) -> None:
        self._pool.shutdown()
