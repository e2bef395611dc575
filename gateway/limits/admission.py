"""Who may begin: as many requests as their tokens have room for, and a short line of those who wait."""

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
    called: threading.Event | None = None  # of one that waits
    in_since_s: float | None = None


class Admission:
    """Room for `capacity_tokens`, `places` requests in all, of which `max_waiting` may stand in line, first come first.

    A refusal costs a lock and no wait. A request that is larger than all the room runs alone.
    """

    def __init__(self, capacity_tokens: int, places: int, max_waiting: int) -> None:
        self._capacity = capacity_tokens
        self._places = places
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._used = 0
        self._running = 0
        self._line: deque[_Ticket] = deque()
        self._mean_s = 1.0

    @contextmanager
    def admit(self, tokens: int, deadline: Deadline, cancellation: Cancellation) -> Generator[None]:
        """Holds room for a request; raises Overloaded at once when the line is full, or when waiting took too long.

        Raises DeadlineExceeded when there is no time left, and Cancelled when the client has left.
        """
        left_s = deadline.left_s()
        ticket = _Ticket(min(tokens, self._capacity))
        with self._lock:
            if self._running + len(self._line) >= self._places:
                raise Overloaded(retry_after_s=self._retry_after_s())
            self._line.append(ticket)
            self._call()
            if ticket.in_since_s is None and len(self._line) > self._max_waiting:
                self._line.remove(ticket)
                raise Overloaded(retry_after_s=self._retry_after_s())
            if ticket.in_since_s is None:
                ticket.called = threading.Event()
        try:
            if ticket.called is not None:
                cancellation.then(ticket.called.set)
                ticket.called.wait(left_s)
            if cancellation.is_said:
                raise Cancelled
            with self._lock:
                if ticket.in_since_s is None:
                    raise Overloaded(retry_after_s=self._retry_after_s())
            yield
        finally:
            with self._lock:
                self._leave(ticket)

    def state(self) -> tuple[int, int, int]:
        """Running and waiting requests, and the tokens of those that run."""
        with self._lock:
            return self._running, len(self._line), self._used

    def _call(self) -> None:
        while self._line and (self._used + self._line[0].cost <= self._capacity):
            ticket = self._line.popleft()
            self._used += ticket.cost
            self._running += 1
            ticket.in_since_s = time.monotonic()
            if ticket.called is not None:
                ticket.called.set()

    def _leave(self, ticket: _Ticket) -> None:
        if ticket.in_since_s is not None:
            self._used -= ticket.cost
            self._running -= 1
            self._mean_s += _SMOOTHING * (time.monotonic() - ticket.in_since_s - self._mean_s)
        else:
            self._line.remove(ticket)
        self._call()

    def _retry_after_s(self) -> int:
        """When a place is likely to be free: the mean time of a request, for each that waits before one that runs."""
        rounds = 1 + len(self._line) / max(1, self._running)
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._mean_s * rounds)))
