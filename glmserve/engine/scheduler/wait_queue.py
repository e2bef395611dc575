"""The wait queue's limits: how many requests and prompt tokens may wait for a slot, and when to try again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from glmserve.errors import Overloaded

_WEIGHT = 0.2
_LONGEST_RETRY_S = 60


class Ticket:
    """One request's place in the wait queue; leaving twice is harmless."""

    def __init__(self, wait_queue: WaitQueue, tokens: int) -> None:
        self._wait_queue = wait_queue
        self._tokens: int | None = tokens

    def leave(self) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            self._wait_queue.leave(tokens)


class WaitQueue:
    """Counts waiting requests and their tokens, from arrival to slot; safe to share between threads."""

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
        """A ticket for a prompt of `tokens` tokens; raises Overloaded with a retry time when the queue is full.

        A prompt longer than the queue's token limit may wait when no other request does.
        """
        with self._lock:
            is_full = self._requests >= self._max_requests
            if is_full or (self._requests and self._tokens + tokens > self._max_tokens):
                raise Overloaded("The wait queue is full; try again shortly.", self._retry_after_s())
            self._requests += 1
            self._tokens += tokens
        return Ticket(self, tokens)

    def leave(self, tokens: int) -> None:
        """Gives a ticket's place back; only the ticket calls it."""
        with self._lock:
            self._requests -= 1
            self._tokens -= tokens

    def request_ended(self) -> None:
        """A slot became free; the mean time between two calls tells how fast the queue moves."""
        with self._lock:
            now = self._clock()
            if self._ended_at is not None and self._requests:
                self._gap_s += _WEIGHT * (now - self._ended_at - self._gap_s) if self._gap_s else now - self._ended_at
            self._ended_at = now

    def _retry_after_s(self) -> int:
        """The time in which half the queue drains: by then there is room, and the queue has not run empty."""
        return max(1, min(_LONGEST_RETRY_S, round(self._gap_s * self._requests / 2)))
