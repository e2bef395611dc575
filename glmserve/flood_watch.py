"""Tells a flood from a crowd by how the wait queue grows, and bounds the wait for as long as the flood lasts.

A crowd comes at once, or asks again when it is answered: its queue is long, but does not grow. In a flood more requests
arrive than can be answered: the queue grows until everybody waits as long as the limits allow. Then it is better to
refuse some at once, and to answer the others soon. At the beginning the two look alike, so nobody is refused then.
"""

from __future__ import annotations

_CROWD_ARRIVES_WITHIN = 0.75
"""A queue may grow freely for so many request times; what has come by then is a crowd."""
_LEAST_GROWTH = 8
"""It is a flood once as many more wait as run, and at least so many more."""
_CALM_AFTER = 2
"""A flood is over when for so many request times nobody would have waited too long."""
_LOOK_ANEW_AFTER = 256
"""Request times after which a flood must show itself again: refused clients that come back look like one."""


class FloodWatch:
    """Asked once for each request that would have to wait; has no clock and no lock of its own."""

    def __init__(self, longest_wait: float) -> None:
        """`longest_wait` in a flood, as a multiple of the time that a request takes; 0 never refuses."""
        self._longest_wait = longest_wait
        self._crowd = 0
        self._crowded_since = 0.0
        self._flooded_since: float | None = None
        self._too_long_at = float("-inf")

    def refuses(self, wait_s: float, waiting: int, running: int, request_s: float, now: float) -> bool:
        """Whether a request that would wait `wait_s` behind `waiting` others is to be refused. `request_s` is the mean
        time that a request takes, 0 while it is not known."""
        if not waiting:
            self._crowd, self._crowded_since = 0, now
        is_too_long = request_s > 0 and wait_s > self._longest_wait * request_s > 0
        self._forget_flood(request_s, now)
        if is_too_long:
            self._too_long_at = now
        if self._flooded_since is None:
            if not request_s or now - self._crowded_since <= _CROWD_ARRIVES_WITHIN * request_s:
                self._crowd = waiting
            elif waiting > self._crowd + max(_LEAST_GROWTH, running):
                self._flooded_since = now
        return self._flooded_since is not None and is_too_long

    def _forget_flood(self, request_s: float, now: float) -> None:
        """Ends a flood that is over, or that is to show itself anew."""
        if self._flooded_since is None:
            return
        is_over = now - self._too_long_at > _CALM_AFTER * request_s
        if is_over or now - self._flooded_since > _LOOK_ANEW_AFTER * request_s:
            self._flooded_since, self._crowded_since = None, now
