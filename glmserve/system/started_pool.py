"""A pool whose threads all run from its beginning: what a process holds is then known before its first crowd."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def started_pool(threads: int, name: str, initializer: Callable[[], object] = lambda: None) -> ThreadPoolExecutor:
    """A pool of so many threads; of its own accord it would start each with the first task that finds none free."""
    pool = ThreadPoolExecutor(threads, name, initializer)
    together = threading.Barrier(threads)
    for started in [pool.submit(together.wait) for _ in range(threads)]:
        started.result()
    return pool
