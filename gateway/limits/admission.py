"""Which requests may start: as many as their tokens have room for; some wait, the rest and the late are refused."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.deadline import Deadline
from gateway.triton.backend import Cancellation
from glmserve.errors import Cancelled
from glmserve.queue_estimator import Job, QueueEstimator


@dataclass(eq=False)
class _Ticket:
    job: Job
    admitted: threading.Event | None = None  # of one that waits
    has_left: bool = False

    @property
    def is_admitted(self) -> bool:
        return self.job.started is not None


class Admission:
    """Room for `capacity_tokens` and for `max_requests`, of which `max_waiting` may wait, first come first served.

    A refusal takes a lock and no wait. A request that is larger than the capacity runs alone. In a flood nobody waits
    longer than `flood_wait` request times; with 0 there is no such bound.
    """

    def __init__(self, capacity_tokens: int, max_requests: int, max_waiting: int, flood_wait: float = 0.0) -> None:
        self._capacity = capacity_tokens
        self._max_requests = max_requests
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._estimator = QueueEstimator(capacity_tokens, flood_wait)

    def check_open(self) -> None:
        """Raises Overloaded where any request would be refused, however small; its size need not be known yet."""
        with self._lock:
            if self._is_full() or len(self._waiting) >= max(1, self._max_waiting):
                raise self._estimator.overloaded()

    @contextmanager
    def admit(
        self, tokens: int, deadline: Deadline, cancellation: Cancellation, max_tokens: int = 0
    ) -> Generator[None]:
        """Holds room for a request until it ends or its client leaves.

        Raises Overloaded at once when the wait queue is full, in a flood, or when an answer of `max_tokens` would not
        end in time, or after too long a wait; DeadlineExceeded when there is no time left, and Cancelled when the
        client has left.
        """
        left_s = deadline.left_s()
        ticket = _Ticket(Job(min(tokens, self._capacity), max_tokens, deadline.at_s))
        with self._lock:
            self._enter(ticket)
        try:
            cancellation.add_callback(lambda: self._leave(ticket))
            if ticket.admitted is not None:
                ticket.admitted.wait(left_s)
            if cancellation.is_cancelled:
                raise Cancelled
            with self._lock:
                if not ticket.is_admitted:
                    raise self._estimator.overloaded()
            yield
        finally:
            self._leave(ticket)

    def observe_answer(self, max_tokens: int, tokens: int, prefill_s: float, decode_s: float) -> None:
        """A complete answer as the engine timed it: from these the waits of others are estimated."""
        with self._lock:
            self._estimator.observe_pace(decode_s / max(1, tokens))
            self._estimator.observe_answer(max_tokens, tokens, prefill_s)

    def observe_trial(self, token_s: float, prefill_s: float) -> None:
        """What the canary's answer took, as the engine timed it: how fast this machine is, before anybody has asked."""
        with self._lock:
            self._estimator.observe_trial(token_s, prefill_s)

    def counts(self) -> tuple[int, int, int]:
        """Running and waiting requests, and the tokens of those that run."""
        with self._lock:
            return len(self._estimator.running), len(self._waiting), self._estimator.used

    def _is_full(self) -> bool:
        return len(self._estimator.running) + len(self._waiting) >= self._max_requests

    def _enter(self, ticket: _Ticket) -> None:
        if self._is_full():
            raise self._estimator.overloaded()
        self._estimator.enter(ticket.job, time.monotonic())
        self._waiting.append(ticket)
        self._admit_waiting()
        if ticket.is_admitted:
            return
        if len(self._waiting) > self._max_waiting:
            refusal = self._estimator.overloaded()
            self._waiting.remove(ticket)
            self._estimator.leave(ticket.job)
            raise refusal
        ticket.admitted = threading.Event()

    def _admit_waiting(self) -> None:
        now = time.monotonic()
        while self._waiting and self._estimator.used + self._waiting[0].job.cost <= self._capacity:
            ticket = self._waiting.popleft()
            self._estimator.start(ticket.job, now)
            if ticket.admitted is not None:
                ticket.admitted.set()

    def _leave(self, ticket: _Ticket) -> None:
        """Runs on the request's thread, or on the one that cancels it; the second time does nothing."""
        with self._lock:
            if ticket.has_left:
                return
            ticket.has_left = True
            now = time.monotonic()
            if ticket.is_admitted:
                self._estimator.observe_departure(now)
            else:
                self._waiting.remove(ticket)
            self._estimator.leave(ticket.job)
            self._admit_waiting()
            if ticket.admitted is not None:
                ticket.admitted.set()
