"""The image encoder's priority: where its threads share a core with the decoder's, decode steps come first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
NICENESS = 5
"""On a core that both want, the decoder gets three quarters of it."""


def be_nice() -> None:
    """Lowers the priority of the thread that calls, for good."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def made_nice(make: Callable[[], T]) -> T:
    """What `make` returns, called on a thread of low priority: threads that it starts inherit that."""
    with ThreadPoolExecutor(1, "image-encoder", be_nice) as pool:
        return pool.submit(make).result()
