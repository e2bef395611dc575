"""Processor time of what a test does, which a busy machine changes less than the time on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable

_TRIES = 5


def takes_less_than(most_s: float, act: Callable[[], object]) -> bool:
    """Whether this thread does it in less processor time than that, once in a few tries: garbage collection and
    caches that others emptied only add to it."""
    return any(_cpu_s(act) < most_s for _ in range(_TRIES))


def _cpu_s(act: Callable[[], object]) -> float:
    before_s = time.thread_time()
    act()
    return time.thread_time() - before_s
