"""Ends a run of the image encoder from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Stop:
    """Set at most once, on any thread; runs what was registered with it, before or after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._acts: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            acts, self._acts = self._acts, []
        for act in acts:
            act()

    def when_set(self, act: Callable[[], None]) -> None:
        """Runs `act` on the thread that sets it, or now if that has happened."""
        with self._lock:
            if not self._is_set:
                self._acts.append(act)
                return
        act()
