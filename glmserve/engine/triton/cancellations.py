"""The keys of cancelled requests, shared between the threads that cancel and the engine that asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

_MOST = 4096


class Cancellations:
    """Safe to share between threads. A key may be cancelled before its request comes; the newest 4096 keys are kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._cancelled: OrderedDict[int, None] = OrderedDict()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def cancel(self, key: int) -> None:
        with self._lock:
            self._cancelled[key] = None
            callback = self._callbacks.pop(key, None)
            while len(self._cancelled) > _MOST:
                self._cancelled.popitem(last=False)
        if callback is not None:
            callback()

    def add_callback(self, key: int, callback: Callable[[], None]) -> None:
        """Runs `callback` on the thread that cancels, or now if that has happened; `forget` drops it."""
        with self._lock:
            if key not in self._cancelled:
                self._callbacks[key] = callback
                return
        callback()

    def is_cancelled(self, key: int) -> bool:
        return key in self._cancelled

    def forget(self, key: int) -> None:
        """The request has ended."""
        with self._lock:
            self._cancelled.pop(key, None)
            self._callbacks.pop(key, None)
