"""Arrays that are the same step after step: made once, closed for writing, and shared by all who read them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def closed(array: np.ndarray) -> np.ndarray:
    """The array itself, made read-only."""
    array.flags.writeable = False
    return array


@lru_cache
def numbered(count: int) -> np.ndarray:
    """0, 1 … i64 [count]."""
    return closed(np.arange(count))


@lru_cache
def zeros(count: int) -> np.ndarray:
    """i64 [count]."""
    return closed(np.zeros(count, np.int64))
