"""The wait queue's limits: how many requests and prompt tokens may wait for a slot, and which cannot end in time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

from glmserve.errors import InvalidInput, Overloaded
from glmserve.limits import MAX_ANSWERS
from glmserve.queue_estimator import Job, QueueEstimator

_UNBOUNDED = 1 << 30


class Ticket:
    """One answer's place in the wait queue, then its slot; any thread may give it back, and twice is harmless."""

    def __init__(self, wait_queue: WaitQueue, tokens: int, job: Job, together: Tickets) -> None:
        """`together` are the tickets of the request's answers, with this one."""
        self._wait_queue = wait_queue
        self.tokens = tokens
        self.job = job
        self.together = together
        self.has_started = self.has_left = False

    def start(self) -> None:
        """The request has got its slot, and waits no more."""
        self.has_started = True
        self._wait_queue.start(self)

    def outgrow(self) -> None:
        """The request needs a long row from now on."""
        self.job.is_long = True

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
        long_rows: int = _UNBOUNDED,
    ) -> None:
        """`slots` is how many requests run together; without a number, nobody's wait is estimated. `flood_wait` is the
        longest wait in a flood, in request times; 0 sets no such bound. At most `long_rows` of those that run hold a
        long row."""
        self._max_requests, self._max_tokens = max_requests, max_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: set[Ticket] = set()
        self._tokens = 0
        self._estimator = QueueEstimator(slots, flood_wait, long_rows)

    @property
    def requests(self) -> int:
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        return self._tokens

    def enter(self, tokens: int, max_tokens: int = 0, left_s: float = math.inf) -> Ticket:
        """The ticket of a prompt with one answer; see `enter_all`."""
        return self.enter_all(1, tokens, max_tokens, left_s).one

    def enter_all(
        self, answers: int, tokens: int, max_tokens: int = 0, left_s: float = math.inf, is_long: bool = False
    ) -> Tickets:
        """Tickets for the answers to a prompt of `tokens` tokens, each of at most `max_tokens` and with a deadline in
        `left_s`; all of them, or none. With `is_long`, each needs a long row.

        Raises Overloaded with a retry time when the queue is full, in a flood, or when an answer would not end in time;
        InvalidInput for more answers than there are places. Who has a free slot needs no place to wait in. What comes
        while nothing runs or waits may try, however long it takes: it would be refused as often as it came. So may a
        prompt wait that is longer than the queue's token limit, when no other request does.
        """
        tickets = Tickets()
        with self._lock:
            self._check_room(answers, tokens + answers - 1, is_long)
            now, is_alone = self._clock(), self._estimator.is_idle
            try:
                for number in range(answers):
                    job = Job(1, max_tokens, now + left_s, is_long, is_exempt=is_alone)
                    self._estimator.enter(job, now)
                    tickets.add(self._placed(Ticket(self, 1 if number else tokens, job, tickets)))  # they share KV
            except Overloaded:
                for ticket in tickets:
                    self._forget(ticket)
                    self._estimator.leave(ticket.job)
                raise
        return tickets

    def start(self, ticket: Ticket) -> None:
        """Only the ticket calls it. Whose first answer has begun is not refused the others any more."""
        with self._lock:
            for each in ticket.together:
                each.job.is_exempt = True
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

    def _check_room(self, answers: int, tokens: int, is_long: bool) -> None:
        """Raises where there is no room for so many answers now, or never is."""
        has_slots = self._estimator.capacity != _UNBOUNDED
        slots = self._estimator.capacity if has_slots else 0
        places = self._max_requests + (min(slots, int(self._estimator.long_places)) if is_long else slots)
        if answers > places:
            raise InvalidInput(
                f"The request asks for {answers} answers at once (n for each of its prompts), and this service has "
                f"{places} places{' for prompts as long as this' if is_long else ''}. Ask for fewer answers, or send "
                "fewer prompts in a request. The operator makes places with GLM_ENGINE_SLOTS, GLM_ENGINE_MAX_WAITING "
                "and GLM_ENGINE_LONG_ROWS.",
                "n" if answers <= MAX_ANSWERS else "prompt",
            )
        wait = self._estimator.would_wait(answers, is_long) if has_slots else len(self._waiting) + answers
        if wait > self._max_requests or (self._waiting and self._tokens + tokens > self._max_tokens):
            raise self._estimator.overloaded()

    def _placed(self, ticket: Ticket) -> Ticket:
        self._waiting.add(ticket)
        self._tokens += ticket.tokens
        return ticket

    def _forget(self, ticket: Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._tokens -= ticket.tokens
