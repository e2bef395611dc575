"""Which requests may start: as many as their tokens have room for; a bounded number wait, the rest are refused."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.deadline import Deadline
from gateway.triton.backend import Cancellation
from glmserve.errors import Cancelled, Overloaded

_LONGEST_RETRY_S = 30
_SMOOTHING = 0.1


@dataclass(eq=False)
class _Ticket:
    cost: int
    admitted: threading.Event | None = None  # of one that waits
    admitted_at_s: float | None = None


class Admission:
    """Room for `capacity_tokens` and for `max_requests`, of which `max_waiting` may wait, first come first served.

    A refusal takes a lock and no wait. A request that is larger than the capacity runs alone.
    """

    def __init__(self, capacity_tokens: int, max_requests: int, max_waiting: int) -> None:
        self._capacity = capacity_tokens
        self._max_requests = max_requests
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._used = 0
        self._running = 0
        self._waiting: deque[_Ticket] = deque()
        self._mean_s = 1.0

    @contextmanager
    def admit(self, tokens: int, deadline: Deadline, cancellation: Cancellation) -> Generator[None]:
        """Holds room for a request; raises Overloaded at once when the wait queue is full, or after too long a wait.

        Raises DeadlineExceeded when there is no time left, and Cancelled when the client has left.
        """
        left_s = deadline.left_s()
        ticket = _Ticket(min(tokens, self._capacity))
        with self._lock:
            if self._running + len(self._waiting) >= self._max_requests:
                raise Overloaded(retry_after_s=self._retry_after_s())
            self._waiting.append(ticket)
            self._admit_waiting()
            if ticket.admitted_at_s is None and len(self._waiting) > self._max_waiting:
                self._waiting.remove(ticket)
                raise Overloaded(retry_after_s=self._retry_after_s())
            if ticket.admitted_at_s is None:
                ticket.admitted = threading.Event()
        try:
            if ticket.admitted is not None:
                cancellation.add_callback(ticket.admitted.set)
                ticket.admitted.wait(left_s)
            if cancellation.is_cancelled:
                raise Cancelled
            with self._lock:
                if ticket.admitted_at_s is None:
                    raise Overloaded(retry_after_s=self._retry_after_s())
            yield
        finally:
            with self._lock:
                self._release(ticket)

    def counts(self) -> tuple[int, int, int]:
        """Running and waiting requests, and the tokens of those that run."""
        with self._lock:
            return self._running, len(self._waiting), self._used

    def _admit_waiting(self) -> None:
        while self._waiting and (self._used + self._waiting[0].cost <= self._capacity):
            ticket = self._waiting.popleft()
            self._used += ticket.cost
            self._running += 1
            ticket.admitted_at_s = time.monotonic()
            if ticket.admitted is not None:
                ticket.admitted.set()

    def _release(self, ticket: _Ticket) -> None:
        if ticket.admitted_at_s is not None:
            self._used -= ticket.cost
            self._running -= 1
            self._mean_s += _SMOOTHING * (time.monotonic() - ticket.admitted_at_s - self._mean_s)
        else:
            self._waiting.remove(ticket)
        self._admit_waiting()

    def _retry_after_s(self) -> int:
        """When room is likely: the mean time of a request, times the rounds in which those that wait will run."""
        rounds = 1 + len(self._waiting) / max(1, self._running)
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._mean_s * rounds)))
