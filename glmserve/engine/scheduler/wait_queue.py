"""The waiting line: bounded in requests and in tokens, and able to say when a place is likely to be free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from glmserve.errors import Overloaded

_WEIGHT = 0.2
_LONGEST_RETRY_S = 60


class Ticket:
    """One request's place in the line; given back once, however often it is asked to."""

    def __init__(self, line: WaitQueue, tokens: int) -> None:
        self._line = line
        self._tokens: int | None = tokens

    def leave(self) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            self._line.left(tokens)


class WaitQueue:
    """Counts those who wait, on any thread: from a request's arrival until it holds a slot or has ended."""

    def __init__(self, max_requests: int, max_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_requests, self._max_tokens = max_requests, max_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = 0
        self._tokens = 0
        self._gap_s = 0.0
        self._ended_at: float | None = None

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def tokens(self) -> int:
        return self._tokens

    def enter(self, tokens: int) -> Ticket:
        """A place for a prompt of so many tokens; raises Overloaded, with the time to come back, when there is none.

        A prompt longer than the whole line allows may wait when nobody else does.
        """
        with self._lock:
            is_full = self._requests >= self._max_requests
            if is_full or (self._requests and self._tokens + tokens > self._max_tokens):
                raise Overloaded("The waiting line is full; try again shortly.", self._retry_after_s())
            self._requests += 1
            self._tokens += tokens
        return Ticket(self, tokens)

    def left(self, tokens: int) -> None:
        with self._lock:
            self._requests -= 1
            self._tokens -= tokens

    def request_ended(self) -> None:
        """A slot became free: the mean time between two such moments tells how fast the line moves."""
        with self._lock:
            now = self._clock()
            if self._ended_at is not None and self._requests:
                self._gap_s += _WEIGHT * (now - self._ended_at - self._gap_s) if self._gap_s else now - self._ended_at
            self._ended_at = now

    def _retry_after_s(self) -> int:
        """Half the line's length in time: whoever comes back then finds room without it having run empty."""
        return max(1, min(_LONGEST_RETRY_S, round(self._gap_s * self._requests / 2)))
