"""Estimates when a queued request would end, and refuses what cannot end in time; gateway and engine both use it.

It has no clock, lock or thread of its own: its owner holds a lock and tells it the time.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from glmserve.errors import Overloaded
from glmserve.flood_watch import FloodWatch

LONGEST_RETRY_S = 60
_WEIGHT = 0.2
_PACE_WEIGHT = 0.05
_TOLERANCE = 0.85
"""An estimate counts by so much: it is off by a tenth now and then, and a wrong refusal is worse than a late answer."""
_USUAL_SHARE = 0.25
"""Of the tokens that it may have, an answer is taken to use so much where only a time to come back hangs on it."""


@dataclass(eq=False)
class Job:
    """One request: what it takes of the capacity, how long its answer may be, when its time is over, and whether it
    needs one of the long places, which are few."""

    cost: int
    max_tokens: int
    deadline: float
    is_long: bool = False
    started: float | None = None
    is_exempt: bool = False
    """It found room at once, nobody else is there, or its request has begun: it may try, whatever the estimate says."""


class QueueEstimator:
    """What runs and waits, and how fast it moves. Optimistic while nothing is known: then nothing is refused."""

    def __init__(self, capacity: int, flood_wait: float = 0.0, long_places: float = math.inf) -> None:
        """`flood_wait` is the longest wait in a flood, in request times; 0 knows no floods. At most `long_places` long
        jobs run together; those that wait for such a place are passed by others."""
        self.capacity, self.long_places = capacity, long_places
        self.waiting: dict[Job, None] = {}
        self.running: dict[Job, None] = {}
        self.used = 0
        """What the running jobs take of the capacity."""
        self._pace_s = _Mean(_PACE_WEIGHT)
        self._share = _Mean(_WEIGHT)
        self._prefill_s = _Mean(_WEIGHT)
        self._gap_s = _Mean(_WEIGHT)
        self._trial_prefill_s = 0.0
        self._flood = FloodWatch(flood_wait)
        self._ended_at: float | None = None

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def enter(self, job: Job, now: float) -> None:
        """Queues a job; raises Overloaded for one that cannot end before its deadline, or that a flood brings."""
        self.waiting[job] = None
        starting = self._with_room(self.waiting)
        job.is_exempt |= job in starting
        if job.is_exempt:
            return
        start, soon = self._forecast(now)[job], len(starting)
        running, others = len(self.running) + soon, len(self.waiting) - 1 - soon
        is_flood = self._flood.refuses(start - now, others, running, self._request_s(), now)
        if is_flood or self._is_late(job, start, now):
            refusal = self.overloaded()
            self.leave(job)
            raise refusal

    def late(self, now: float) -> list[Job]:
        """The waiting jobs that cannot end before their deadline, as far as is known by now."""
        return [job for job, start in self._forecast(now).items() if self._is_late(job, start, now)]

    def start(self, job: Job, now: float) -> None:
        """A waiting job has got its room."""
        if job not in self.waiting:
            return
        del self.waiting[job]
        self.running[job] = None
        self.used += job.cost
        job.started = now

    def leave(self, job: Job) -> None:
        """Takes a job out, whether it waits or runs; a second time changes nothing."""
        if job in self.waiting:
            del self.waiting[job]
        elif job in self.running:
            del self.running[job]
            self.used -= job.cost

    def would_wait(self, more: int, is_long: bool) -> int:
        """How many jobs would have no room yet: of those that wait, and so many more that cost 1."""
        jobs = [*self.waiting, *(Job(1, 0, math.inf, is_long) for _ in range(more))]
        return len(jobs) - len(self._with_room(jobs))

    def observe_pace(self, seconds: float) -> None:
        """The time that an output token took."""
        self._pace_s.add(seconds)

    def observe_trial(self, token_s: float, prefill_s: float) -> None:
        """What an answer of the service's own took, of which nobody knows how long others will be. It says how fast
        the machine is before the first request; from then on requests say it."""
        if self._pace_s.count == 0:
            self._pace_s.add(token_s)
        self._trial_prefill_s = prefill_s

    def observe_answer(self, max_tokens: int, tokens: int, prefill_s: float) -> None:
        """A complete answer: how much of what was allowed it used, and how long its prefill took."""
        self._share.add(min(1.0, tokens / max(1, max_tokens)))
        self._prefill_s.add(prefill_s)

    def observe_departure(self, now: float) -> None:
        """Room became free; the mean time between two departures tells how fast the queue moves."""
        if self._ended_at is not None and self.waiting:
            self._gap_s.add(now - self._ended_at)
        self._ended_at = now

    def overloaded(self) -> Overloaded:
        """The refusal: come back when half the queue has drained, for then there is room and no place is empty."""
        gap_s = self._gap_s.value if self._gap_s.count else self._likely_gap_s()
        wait_s = round(gap_s * len(self.waiting) / 2)
        return Overloaded("The wait queue is full; try again shortly.", max(1, min(LONGEST_RETRY_S, wait_s)))

    def work_s(self, max_tokens: int) -> float:
        """What a request takes from its start on; 0 while nothing is known."""
        return self._prefill_s.value + max_tokens * self._share.value * self._pace_s.value

    def _with_room(self, jobs: Iterable[Job]) -> set[Job]:
        """Those of the jobs, in their order, for which there is room already: they only wait until somebody takes
        them."""
        free, long_left, found = self.capacity - self.used, self._long_left(), set[Job]()
        for job in jobs:
            if job.is_long and long_left <= 0:
                continue
            free -= job.cost
            if free < 0:
                break
            long_left -= job.is_long
            found.add(job)
        return found

    def _long_left(self) -> float:
        return self.long_places - sum(job.is_long for job in self.running)

    def _likely_gap_s(self) -> float:
        """The time between two departures while none was seen: what those that run take, if they are of the usual
        length, over their number."""
        share = self._share.value if self._share.count else _USUAL_SHARE
        prefill_s = self._prefill_s.value if self._prefill_s.count else self._trial_prefill_s
        work_s = sum(prefill_s + job.max_tokens * share * self._pace_s.value for job in self.running)
        return work_s / max(1, len(self.running)) ** 2

    def _request_s(self) -> float:
        """What those that run take on average; 0 while nothing is known."""
        return sum(self.work_s(job.max_tokens) for job in self.running) / max(1, len(self.running))

    def _forecast(self, now: float) -> dict[Job, float]:
        """When each waiting job would start. One that cannot make it takes no room from those behind it."""
        free, long_left, starts = self.capacity - self.used, self._long_left(), dict[Job, float]()
        endings = [
            (max(now, (now if job.started is None else job.started) + self.work_s(job.max_tokens)), number, job)
            for number, job in enumerate(self.running)
        ]
        heapq.heapify(endings)
        start, number = now, len(endings)
        waiting, passed = deque(self.waiting), deque[Job]()  # these wait for a long place
        while waiting or passed:
            queue = passed if passed and (long_left > 0 or not waiting) else waiting
            job = queue[0]
            is_stuck = job.is_long and long_left <= 0
            if is_stuck and queue is waiting:
                passed.append(waiting.popleft())
            elif endings and (is_stuck or free < job.cost):
                start, _, ended = heapq.heappop(endings)
                free, long_left = free + ended.cost, long_left + ended.is_long
            else:
                starts[queue.popleft()] = start
                if not self._is_late(job, start, now):
                    free, long_left, number = free - job.cost, long_left - job.is_long, number + 1
                    heapq.heappush(endings, (start + self.work_s(job.max_tokens), number, job))
        return starts

    def _is_late(self, job: Job, start: float, now: float) -> bool:
        needed_s = start - now + self.work_s(job.max_tokens)
        return not job.is_exempt and now + _TOLERANCE * needed_s > job.deadline


class _Mean:
    """A mean that follows: the plain one of the first values, then one in which the newest has this weight."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self.count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        if math.isfinite(value):
            self.count += 1
            self.value += max(self._weight, 1 / self.count) * (value - self.value)
