"""The wait queue counts exactly and says when to retry, and chunks leave room for decoding sequences."""

from __future__ import annotations

import pytest

from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.wait_queue import Ticket, WaitQueue
from glmserve.errors import Overloaded, from_wire, to_wire


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_places_are_bounded_by_requests_and_by_tokens_and_come_back_once() -> None:
    wait_queue = WaitQueue(max_requests=3, max_tokens=100)
    places = [wait_queue.enter(40), wait_queue.enter(40)]
    with pytest.raises(Overloaded):
        wait_queue.enter(40)
    places.append(wait_queue.enter(20))
    with pytest.raises(Overloaded):
        wait_queue.enter(0)
    places[0].leave()
    places[0].leave()
    assert (wait_queue.requests, wait_queue.tokens) == (2, 60)


def test_a_prompt_longer_than_the_line_allows_may_wait_alone() -> None:
    wait_queue = WaitQueue(max_requests=3, max_tokens=100)
    wait_queue.enter(500).leave()
    assert wait_queue.requests == 0


def test_a_refusal_says_when_to_come_back() -> None:
    clock = Clock()
    wait_queue = WaitQueue(max_requests=10, max_tokens=10**6, clock=clock)
    for _ in range(10):
        wait_queue.enter(1)
    for _ in range(20):
        clock.now += 0.8
        wait_queue.request_ended()
    with pytest.raises(Overloaded) as caught:
        wait_queue.enter(1)
    assert caught.value.retry_after_s == 4  # half of ten requests, 0.8 s apart
    sent = from_wire(to_wire(caught.value))
    assert isinstance(sent, Overloaded) and sent.retry_after_s == 4 and sent.message == caught.value.message


def test_those_who_find_a_free_slot_are_no_flood_though_the_engine_has_not_taken_them_yet() -> None:
    """One request with many prompts was refused by an idle service, and again as often as it came."""
    clock = Clock()
    wait_queue = WaitQueue(64, 10**6, clock, slots=16, flood_wait=0.4)
    wait_queue.observe_pace(0.01)
    wait_queue.observe_answer(10, 10, 0.0)
    clock.now += 100.0
    tickets = [wait_queue.enter(3, 10) for _ in range(4)]
    for ticket in tickets:
        ticket.start()
    for _ in range(28):
        wait_queue.enter(3, 10)
    assert wait_queue.requests == 28


@pytest.mark.parametrize(("flood_wait", "most_waiting"), [(0.4, 16), (0.0, 64)])
def test_in_a_flood_the_line_stays_short_unless_it_is_told_not_to(flood_wait: float, most_waiting: int) -> None:
    """Four slots, requests of a second, and a new one every 50 ms: five times what can be answered."""
    clock, running = Clock(), list[tuple[float, Ticket]]()
    wait_queue = WaitQueue(64, 10**6, clock, slots=4, flood_wait=flood_wait)
    wait_queue.observe_pace(0.02)
    wait_queue.observe_answer(50, 50, 0.0)
    waiting, refused, longest = list[Ticket](), 0, 0
    for _ in range(400):
        clock.now += 0.05
        for ended in [one for one in running if one[0] <= clock.now]:
            running.remove(ended)
            ended[1].leave()
            wait_queue.request_ended()
        try:
            waiting.append(wait_queue.enter(1, 50, 1000.0))
        except Overloaded:
            refused += 1
        while waiting and len(running) < 4:
            running.append((clock.now + 1, waiting.pop(0)))
            running[-1][1].start()
        longest = len(waiting) if clock.now > 12 else 0
    assert refused > 200
    assert longest <= most_waiting and (longest > 16) is (flood_wait == 0)


def test_a_long_prompt_takes_less_than_a_decode_step_while_others_are_answered() -> None:
    chunk_budget = ChunkBudget(min_chunk_tokens=8)
    for _ in range(20):
        chunk_budget.observe_step(8, 0, 0.040)
        chunk_budget.observe_step(8, 32, 0.072)
    assert 12 <= chunk_budget.chunk_tokens(decoding=8, beginning=1, most=256) <= 16
    assert chunk_budget.chunk_tokens(decoding=0, beginning=1, most=256) == 256


def test_a_crowd_that_waits_is_read_faster() -> None:
    chunk_budget = ChunkBudget(min_chunk_tokens=8)
    chunk_budget.observe_step(1, 0, 0.040)
    chunk_budget.observe_step(1, 32, 0.072)
    assert chunk_budget.chunk_tokens(decoding=1, beginning=8, most=1000) > 6 * chunk_budget.chunk_tokens(1, 1, 1000)


def test_a_chunk_is_never_less_than_what_costs_a_step_anyway() -> None:
    chunk_budget = ChunkBudget(min_chunk_tokens=256)
    chunk_budget.observe_step(8, 0, 0.005)
    chunk_budget.observe_step(0, 256, 0.006)
    assert chunk_budget.chunk_tokens(decoding=8, beginning=1, most=2048) == 256


def test_a_step_that_happened_to_be_short_makes_no_chunk_huge() -> None:
    chunk_budget = ChunkBudget(min_chunk_tokens=8)
    chunk_budget.observe_step(8, 0, 0.040)
    chunk_budget.observe_step(8, 8, 0.035)  # sooner than a decode step alone
    assert chunk_budget.chunk_tokens(decoding=8, beginning=1, most=4096) < 64
