"""Keeps streams between Triton's models past their end, so that Triton's stub is not the last to let go of one."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

_KEPT_S = 5.0


class EndedStreams:
    """Shared between threads.

    The stub takes a stream that has ended out of a table of its own, on another thread and shortly after. Were that the
    last that knows of it, its arrays would be freed there without Python's lock, and with many answers at a time the
    stub dies of it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._streams: deque[tuple[float, object]] = deque()

    def keep(self, stream: object) -> None:
        """Takes one more, and lets go of those that ended some seconds ago."""
        now_s = time.monotonic()
        with self._lock:
            self._streams.append((now_s, stream))
            while self._streams[0][0] < now_s - _KEPT_S:
                self._streams.popleft()
