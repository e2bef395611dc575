"""The wait queue's limits: how many requests and prompt tokens may wait for a slot, and which cannot end in time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

from glmserve.errors import Overloaded
from glmserve.queue_estimator import Job, QueueEstimator

_UNBOUNDED = 1 << 30


class Ticket:
    """One request's place in the wait queue, then its slot; any thread may give it back, and twice is harmless."""

    def __init__(self, wait_queue: WaitQueue, tokens: int, job: Job) -> None:
        self._wait_queue = wait_queue
        self.tokens = tokens
        self.job = job
        self.has_started = self.has_left = False

    def start(self) -> None:
        """The request has got its slot, and waits no more."""
        self.has_started = True
        self._wait_queue.start(self)

    def leave_queue(self) -> None:
        """Gives the place back if the request still waits; a slot is given back by `leave`."""
        self.has_left |= not self.has_started
        self._wait_queue.leave(self, only_waiting=True)

    def leave(self) -> None:
        """Gives back the place or the slot."""
        self.has_left = True
        self._wait_queue.leave(self)


class Tickets:
    """The tickets of one request's answers, in their order."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    @property
    def one(self) -> Ticket:
        """The ticket where there is one answer."""
        return self._tickets[0]

    def add(self, ticket: Ticket) -> None:
        self._tickets.append(ticket)

    @property
    def has_started(self) -> bool:
        """Whether one of them has its slot: then the engine ends them all."""
        return any(ticket.has_started for ticket in self._tickets)

    def leave_queue(self) -> None:
        """Gives back the places of those that still wait."""
        for ticket in self._tickets:
            ticket.leave_queue()

    def leave(self, first: int = 0) -> None:
        """Gives back every place and slot, of the answers before `first` excepted."""
        for ticket in self._tickets[first:]:
            ticket.leave()


class WaitQueue:
    """Counts waiting requests and their tokens, from arrival to slot; safe to share between threads."""

    def __init__(
        self,
        max_requests: int,
        max_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        slots: int = _UNBOUNDED,
        flood_wait: float = 0.0,
    ) -> None:
        """`slots` is how many requests run together; without a number, nobody's wait is estimated. `flood_wait` is the
        longest wait in a flood, in request times; 0 sets no such bound."""
        self._max_requests, self._max_tokens = max_requests, max_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: set[Ticket] = set()
        self._tokens = 0
        self._estimator = QueueEstimator(slots, flood_wait)

    @property
    def requests(self) -> int:
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        return self._tokens

    def enter(self, tokens: int, max_tokens: int = 0, left_s: float = math.inf) -> Ticket:
        """A ticket for a prompt of `tokens` tokens, an answer of at most `max_tokens`, and a deadline in `left_s`.

        Raises Overloaded with a retry time when the queue is full, in a flood, or when the answer would not end in
        time. A prompt
        longer than the queue's token limit may wait when no other request does.
        """
        with self._lock:
            is_full = len(self._waiting) >= self._max_requests
            if is_full or (self._waiting and self._tokens + tokens > self._max_tokens):
                raise self._estimator.overloaded()
            now = self._clock()
            ticket = Ticket(self, tokens, Job(1, max_tokens, now + left_s))
            self._estimator.enter(ticket.job, now)
            self._waiting.add(ticket)
            self._tokens += tokens
        return ticket

    def start(self, ticket: Ticket) -> None:
        """Only the ticket calls it."""
        with self._lock:
            self._forget(ticket)
            self._estimator.start(ticket.job, self._clock())

    def leave(self, ticket: Ticket, only_waiting: bool = False) -> None:
        """Only the ticket calls it."""
        with self._lock:
            if ticket in self._waiting or not only_waiting:
                self._forget(ticket)
                self._estimator.leave(ticket.job)

    def late(self) -> set[Job]:
        """The waiting requests that cannot end before their deadline."""
        with self._lock:
            return set(self._estimator.late(self._clock())) if self._waiting else set()

    def request_ended(self) -> None:
        """A slot became free."""
        with self._lock:
            self._estimator.observe_departure(self._clock())

    def observe_pace(self, seconds: float) -> None:
        """The time that the last token of a running request took."""
        with self._lock:
            self._estimator.observe_pace(seconds)

    def observe_answer(self, max_tokens: int, tokens: int, prefill_s: float) -> None:
        """A complete answer."""
        with self._lock:
            self._estimator.observe_answer(max_tokens, tokens, prefill_s)

    def overloaded(self) -> Overloaded:
        """The error for a request that waits in vain."""
        with self._lock:
            return self._estimator.overloaded()

    def _forget(self, ticket: Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._tokens -= ticket.tokens
