"""Keeps ended BLS streams alive for some seconds, because Triton's stub must not free them itself."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

_KEPT_S = 5.0


class EndedStreams:
    """Shared between threads.

    The stub drops an ended stream from its own table a little later, on another thread. If that were the last
    reference, its arrays would be freed there without Python's lock, which crashes the stub under load.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._streams: deque[tuple[float, object]] = deque()

    def keep(self, stream: object) -> None:
        """Keeps one more stream, and drops those that ended some seconds ago."""
        now_s = time.monotonic()
        with self._lock:
            self._streams.append((now_s, stream))
            while self._streams[0][0] < now_s - _KEPT_S:
                self._streams.popleft()
