"""Waits for what happens soon, in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_EVERY_S = 0.01


def eventually(happened: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether it happens in that time."""
    give_up = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > give_up:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True
