"""The waiting line counts exactly, says when to come back, and chunks leave room for those being answered."""

from __future__ import annotations

import pytest

from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.errors import Overloaded, from_wire, to_wire


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_places_are_bounded_by_requests_and_by_tokens_and_come_back_once() -> None:
    line = WaitQueue(max_requests=3, max_tokens=100)
    places = [line.enter(40), line.enter(40)]
    with pytest.raises(Overloaded):
        line.enter(40)
    places.append(line.enter(20))
    with pytest.raises(Overloaded):
        line.enter(0)
    places[0].leave()
    places[0].leave()
    assert (line.requests, line.tokens) == (2, 60)


def test_a_prompt_longer_than_the_line_allows_may_wait_alone() -> None:
    line = WaitQueue(max_requests=3, max_tokens=100)
    line.enter(500).leave()
    assert line.requests == 0


def test_a_refusal_says_when_to_come_back() -> None:
    clock = Clock()
    line = WaitQueue(max_requests=10, max_tokens=10**6, clock=clock)
    for _ in range(10):
        line.enter(1)
    for _ in range(20):
        clock.now += 0.8
        line.request_ended()
    with pytest.raises(Overloaded) as caught:
        line.enter(1)
    assert caught.value.retry_after_s == 4  # half of ten requests, 0.8 s apart
    sent = from_wire(to_wire(caught.value))
    assert isinstance(sent, Overloaded) and sent.retry_after_s == 4 and sent.message == caught.value.message


def test_a_long_prompt_takes_less_than_a_decode_step_while_others_are_answered() -> None:
    pace = ChunkBudget(min_chunk_tokens=8)
    for _ in range(20):
        pace.stepped(8, 0, 0.040)
        pace.stepped(8, 32, 0.072)
    assert 12 <= pace.chunk_tokens(decoding=8, beginning=1, most=256) <= 16
    assert pace.chunk_tokens(decoding=0, beginning=1, most=256) == 256


def test_a_crowd_that_waits_is_read_faster() -> None:
    pace = ChunkBudget(min_chunk_tokens=8)
    pace.stepped(1, 0, 0.040)
    pace.stepped(1, 32, 0.072)
    assert pace.chunk_tokens(decoding=1, beginning=8, most=1000) > 6 * pace.chunk_tokens(1, 1, 1000)


def test_a_chunk_is_never_less_than_what_costs_a_step_anyway() -> None:
    pace = ChunkBudget(min_chunk_tokens=256)
    pace.stepped(8, 0, 0.005)
    pace.stepped(0, 256, 0.006)
    assert pace.chunk_tokens(decoding=8, beginning=1, most=2048) == 256


def test_a_step_that_happened_to_be_short_makes_no_chunk_huge() -> None:
    pace = ChunkBudget(min_chunk_tokens=8)
    pace.stepped(8, 0, 0.040)
    pace.stepped(8, 8, 0.035)  # sooner than a decode step alone
    assert pace.chunk_tokens(decoding=8, beginning=1, most=4096) < 64
