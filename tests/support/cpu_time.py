"""Processor time of what a test does, which a busy machine changes less than the time on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable

_TRIES = 5
_FIRST_TIMES, _FIRST_MORE_S = 4, 0.5
"""The first try may take so many times as long, and so much more."""


def takes_less_than(most_s: float, act: Callable[[], object]) -> bool:
    """Whether this thread does it in less processor time than that, once in a few tries: garbage collection and
    caches that others emptied only add to it. What is dear only until it was seen once does not pass."""
    first_s = _cpu_s(act)
    if first_s >= most_s * _FIRST_TIMES + _FIRST_MORE_S:
        return False
    return first_s < most_s or any(_cpu_s(act) < most_s for _ in range(_TRIES - 1))


def _cpu_s(act: Callable[[], object]) -> float:
    before_s = time.thread_time()
    act()
    return time.thread_time() - before_s
