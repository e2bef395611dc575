"""How long Tritons stay away when they go down, for the Retry-After of requests that come meanwhile."""

from __future__ import annotations

import math
from collections import deque

_REMEMBERED = 5
_UNKNOWN_S = 5.0
"""What is assumed until one has come back: the demo takes two seconds, nine billion weights about twenty."""
_LONGEST_RETRY_S = 30


class Outages:
    """Remembers the last few outages of one pool; the caller holds the lock."""

    def __init__(self) -> None:
        self._lengths_s: deque[float] = deque(maxlen=_REMEMBERED)

    def ended(self, after_s: float) -> None:
        """Notes that a Triton was back after so many seconds."""
        self._lengths_s.append(after_s)

    def retry_after_s(self, down_for_s: float) -> int:
        """When a Triton that has been down for so long is likely back, in whole seconds from 1 to 30.

        That is what is left of the longest of the last five outages. A Triton that is already down for longer than that
        is expected to need as long again: the wait doubles, as it does between the restarts themselves.
        """
        left_s = max(self._lengths_s, default=_UNKNOWN_S) - down_for_s
        return min(_LONGEST_RETRY_S, max(1, math.ceil(left_s if left_s > 0 else down_for_s)))
