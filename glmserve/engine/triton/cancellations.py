"""Which requests were given up by whoever asked, by the keys that they came with."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

_MOST = 4096


class Cancellations:
    """Safe to share between threads. A key may be said before its request comes; the newest few thousand are known."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._said: OrderedDict[int, None] = OrderedDict()

    def say(self, key: int) -> None:
        with self._lock:
            self._said[key] = None
            while len(self._said) > _MOST:
                self._said.popitem(last=False)

    def is_said(self, key: int) -> bool:
        return key in self._said

    def forget(self, key: int) -> None:
        """The request has ended."""
        with self._lock:
            self._said.pop(key, None)
