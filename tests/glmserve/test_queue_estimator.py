"""In simulated time: what cannot be answered by its deadline is refused at once, and what could have been is not."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, quantiles

import pytest

from glmserve.errors import Overloaded
from glmserve.limits import FLOOD_WAIT
from glmserve.queue_estimator import Job, QueueEstimator

SLOTS = 16
PACE_S = 0.02
Lengths = Callable[[random.Random], tuple[int, int]]
"""The most tokens of an answer, and those it comes to."""


@dataclass
class Asked:
    at: float
    max_tokens: int
    tokens: int
    deadline: float
    job: Job | None = None
    ending: str = ""
    ended_at: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended_at - self.at


@dataclass
class World:
    """A server with so many slots, first come first served, which looks at those who wait now and then.

    With `judges` off it refuses nobody and drops nobody: it tells who would have made it.
    """

    judges: bool = True
    warm: bool = True
    clients: Iterator[Asked] | None = None
    estimator: QueueEstimator = field(default_factory=lambda: QueueEstimator(SLOTS, FLOOD_WAIT))

    def run(self, asked: list[Asked], again: Callable[[Asked, float], Asked | None] = lambda *_: None) -> list[Asked]:
        """All requests with their endings; `again` is what the client of an ended one asks next."""
        events: list[tuple[float, int, str, Asked | None]] = []
        numbers, queue, all_asked = itertools.count(), list[Asked](), list(asked)
        if self.warm:
            self.estimator.observe_pace(PACE_S)
            for one in asked[:20]:
                self.estimator.observe_answer(one.max_tokens, one.tokens, 0.05)
        for one in asked:
            heapq.heappush(events, (one.at, next(numbers), "arrive", one))
        heapq.heappush(events, (0.0, next(numbers), "look", None))
        open_, estimator = len(asked), self.estimator

        def end(one: Asked, how: str, now: float) -> None:
            nonlocal open_
            one.ending, one.ended_at = how, now
            open_ -= 1
            following = again(one, now)
            if following is not None:
                open_ += 1
                all_asked.append(following)
                heapq.heappush(events, (following.at, next(numbers), "arrive", following))

        while open_:
            now, _, what, one = heapq.heappop(events)
            if what == "look":
                heapq.heappush(events, (now + 0.25, next(numbers), "look", None))
            elif what == "arrive":
                assert one is not None
                one.job = Job(1, one.max_tokens, one.deadline if self.judges else math.inf)
                try:
                    estimator.enter(one.job, now) if self.judges else estimator.waiting.update({one.job: None})
                    queue.append(one)
                except Overloaded:
                    end(one, "refused", now)
            elif one is not None and one.job is not None:
                estimator.leave(one.job)
                estimator.observe_departure(now)
                if not self.judges or now <= one.deadline + 1e-9:
                    estimator.observe_pace(PACE_S)
                    estimator.observe_answer(one.max_tokens, one.tokens, 0.05)
                end(one, "done" if now <= one.deadline + 1e-9 else "late", now)
            if what != "arrive" and self.judges:
                late = set(estimator.late(now))
                for waiting in [w for w in queue if w.job in late or now > w.deadline]:
                    queue.remove(waiting)
                    assert waiting.job is not None
                    estimator.leave(waiting.job)
                    end(waiting, "refused later" if now <= waiting.deadline else "late", now)
            while queue and len(estimator.running) < SLOTS:
                begun = queue.pop(0)
                assert begun.job is not None
                estimator.start(begun.job, now)
                needed = begun.tokens * PACE_S + 0.05
                stop = now + needed if not self.judges else min(now + needed, max(begun.deadline, now) + 1e-6)
                heapq.heappush(events, (stop, next(numbers), "end", begun))
        return all_asked


def endings(asked: list[Asked]) -> Counter[str]:
    return Counter(one.ending for one in asked)


def same(max_tokens: int, tokens: int) -> Lengths:
    return lambda _chance: (max_tokens, tokens)


def poisson(rate: float, seconds: float, lengths: Lengths, deadline_s: float, seed: int = 1) -> list[Asked]:
    chance, at, made = random.Random(seed), 0.0, list[Asked]()
    while (at := at + chance.expovariate(rate)) < seconds:
        made.append(Asked(at, *lengths(chance), at + deadline_s))
    return made


def test_a_burst_of_long_answers_is_answered_as_far_as_time_allows_and_the_rest_refused_at_once() -> None:
    burst = [Asked(n * 0.001, 1000, 997, n * 0.001 + 30) for n in range(48)]  # 20 s each
    assert endings(World().run(burst)) == {"done": 16, "refused": 32}
    assert all(one.seconds == 0 for one in burst if one.ending == "refused")


def test_a_server_that_knows_nothing_yet_refuses_nobody_at_first_and_cuts_no_answer_off() -> None:
    burst = [Asked(n * 0.001, 1000, 997, n * 0.001 + 30) for n in range(48)]
    how = endings(World(warm=False).run(burst))
    assert how["done"] == 16 and how["late"] == 0 and how["refused later"] == 32


def test_what_finds_room_is_never_refused() -> None:
    lone = [Asked(60.0 * n, 1000, 997, 60 * n + 1) for n in range(5)]
    assert endings(World().run(lone)) == {"late": 5}


def test_a_burst_that_would_make_it_is_answered_to_the_last() -> None:
    burst = [Asked(n * 0.005, 100, 64, n * 0.005 + 30) for n in range(200)]
    assert endings(World().run(burst)) == {"done": 200}


@pytest.mark.parametrize("clients", [SLOTS * 2, SLOTS * 5])
def test_clients_that_ask_again_when_they_are_answered_are_all_answered(clients: int) -> None:
    chance = random.Random(3)

    def question(at: float) -> Asked:
        return Asked(at, 100, chance.randint(40, 100), at + 30)

    first = [question(chance.random() * 0.2) for _ in range(clients)]
    asked = World().run(first, lambda _one, now: question(now) if now < 60 else None)
    assert endings(asked) == {"done": len(asked)}


def test_at_twice_the_capacity_the_server_stays_busy_and_hardly_anybody_waits_for_nothing() -> None:
    def lengths(chance: random.Random) -> tuple[int, int]:
        return 100, chance.randint(45, 90)

    capacity = SLOTS / (67.5 * PACE_S + 0.05)
    calm = World().run(poisson(0.8 * capacity, 120, lengths, 30))
    flood = World().run(poisson(2 * capacity, 120, lengths, 30))
    assert endings(calm) == {"done": len(calm)}
    assert sum(one.ending == "done" and one.ended_at > 10 for one in flood) >= 0.95 * capacity * 110
    assert endings(flood)["late"] <= 0.01 * len(flood)


def p99(asked: list[Asked]) -> float:
    return quantiles([one.seconds for one in asked if one.ending == "done"], n=100)[98]


LENGTHS: dict[str, Lengths] = {
    "half to all": lambda chance: (100, chance.randint(45, 90)),
    "alike": same(100, 64),
    "mostly short": lambda chance: (256, max(1, min(200, round(chance.expovariate(1 / 64))))),
}


@pytest.mark.slow
@pytest.mark.parametrize("load", [2, 4])
@pytest.mark.parametrize("kind", LENGTHS)
def test_in_a_flood_answers_stay_quick_the_server_busy_and_refusals_come_at_once(kind: str, load: float) -> None:
    lengths = LENGTHS[kind]
    mean_s = fmean(lengths(random.Random(n))[1] for n in range(2000)) * PACE_S + 0.05
    capacity = SLOTS / mean_s
    calm = World().run(poisson(0.8 * capacity, 120, lengths, 30))
    flood = World().run(poisson(load * capacity, 240, lengths, 30))
    steady = [one for one in flood if 10 * mean_s < one.at < 230]
    assert endings(calm) == {"done": len(calm)}
    assert p99(steady) <= 1.5 * p99(calm)
    assert sum(one.ending == "done" for one in steady) >= 0.95 * capacity * (230 - 10 * mean_s)
    assert all(one.seconds == 0 for one in flood if one.ending == "refused")
    assert endings(flood)["refused later"] == endings(flood)["late"] == 0


def test_a_service_that_is_told_to_lets_a_flood_queue() -> None:
    capacity = SLOTS / (64 * PACE_S + 0.05)
    asked = poisson(2 * capacity, 10, same(100, 64), 60)
    assert endings(World(estimator=QueueEstimator(SLOTS)).run(asked)) == {"done": len(asked)}


@pytest.mark.slow
@pytest.mark.parametrize("think_s", [0.0, 1.4])
@pytest.mark.parametrize("clients", [24, 40, 80])
def test_a_crowd_that_comes_at_once_and_asks_again_is_no_flood(clients: int, think_s: float) -> None:
    """The first answer was a short one, as the canary's is; it says little about those of the crowd."""
    world = World(warm=False)
    world.estimator.observe_pace(PACE_S)
    world.estimator.observe_answer(2, 2, 0.01)
    chance = random.Random(clients)

    def question(at: float) -> Asked:
        return Asked(at, 100, chance.randint(45, 90), at + 30)

    def again(_one: Asked, now: float) -> Asked | None:
        return question(now + (chance.expovariate(1 / think_s) if think_s else 0)) if now < 120 else None

    asked = world.run([question(chance.random() * 0.2) for _ in range(clients)], again)
    assert endings(asked)["done"] >= 0.99 * len(asked)


@pytest.mark.slow
def test_clients_that_came_one_by_one_and_were_taken_for_a_flood_are_all_served_in_the_end() -> None:
    chance = random.Random(5)

    def question(at: float) -> Asked:
        return Asked(at, 100, chance.randint(45, 90), at + 30)

    def again(one: Asked, now: float) -> Asked | None:
        return question(now + (1.0 if one.ending == "refused" else 0.0)) if now < 600 else None

    asked = World().run([question(chance.random() * 20) for _ in range(48)], again)
    assert endings(asked)["refused"]
    assert all(one.ending == "done" for one in asked if one.at > 450)


def test_after_a_flood_nobody_is_refused() -> None:
    capacity = SLOTS / (64 * PACE_S + 0.05)
    flood, calm = (poisson(rate * capacity, 20, same(100, 64), 30) for rate in (3, 0.7))
    for one in calm:
        one.at, one.deadline = one.at + 25, one.deadline + 25
    World().run(flood + calm)
    assert endings(calm) == {"done": len(calm)}


@pytest.mark.parametrize("deadline_s", [3.0, 6.0])
@pytest.mark.parametrize("used", ["all", "half to all", "a tenth on average"])
def test_hardly_a_request_is_refused_that_would_have_made_it(used: str, deadline_s: float) -> None:
    """Each refusal is judged by a server that serves it, too, for as long as it takes: at most 2 % were wrong."""

    def lengths(chance: random.Random) -> tuple[int, int]:
        share = {"all": 1.0, "half to all": chance.uniform(0.5, 1), "a tenth on average": chance.expovariate(10)}[used]
        return 200 if used == "all" else 600 if used != "half to all" else 250, max(1, round(min(1.0, share) * 200))

    wrong = count = 0
    for seed in range(6):
        chance = random.Random(seed)
        burst = [
            Asked(at, *lengths(chance), at + deadline_s) for at in sorted(chance.random() * 0.3 for _ in range(64))
        ]
        how = World().run([Asked(one.at, one.max_tokens, one.tokens, one.deadline) for one in burst])
        truth = World(judges=False).run(burst)
        count += len(burst)
        for judged, served in zip(how, truth, strict=True):
            wrong += judged.ending.startswith("refused") and served.ending == "done"
    assert wrong <= 0.02 * count


def test_before_anybody_was_answered_the_canary_tells_when_to_come_back() -> None:
    """On a slow machine the first refusal must not send its client into a second one."""
    estimator = QueueEstimator(capacity=4)
    estimator.observe_trial(token_s=0.5, prefill_s=8.0)
    for number in range(8):
        job = Job(1, 64, math.inf)
        estimator.enter(job, 0.0)
        if number < 4:
            estimator.start(job, 0.0)
    each_s = 8.0 + 64 * 0.25 * 0.5
    assert estimator.overloaded().retry_after_s == round(each_s / 4 * 4 / 2)


def test_what_requests_took_counts_more_than_the_canary() -> None:
    estimator = QueueEstimator(capacity=1)
    estimator.observe_pace(0.01)
    estimator.observe_trial(token_s=5.0, prefill_s=50.0)
    estimator.observe_answer(100, 10, 0.0)
    running, waiting = Job(1, 100, math.inf), [Job(1, 100, math.inf) for _ in range(40)]
    estimator.enter(running, 0.0)
    estimator.start(running, 0.0)
    for job in waiting:
        estimator.enter(job, 0.0)
    assert estimator.overloaded().retry_after_s == round(100 * 0.1 * 0.01 * 40 / 2)


def test_a_canary_refuses_nobody() -> None:
    estimator = QueueEstimator(capacity=1)
    estimator.observe_trial(token_s=5.0, prefill_s=50.0)
    for _ in range(5):
        estimator.enter(Job(1, 1000, 1.0), 0.0)
    assert not estimator.late(0.5)
