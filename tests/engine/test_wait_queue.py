"""The wait queue counts exactly and says when to retry, and chunks leave room for decoding sequences."""

from __future__ import annotations

import pytest

from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.wait_queue import Ticket, WaitQueue
from glmserve.errors import InvalidInput, Overloaded, from_wire, to_wire


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


@pytest.mark.parametrize(("answers", "field"), [(8, "n"), (17, "prompt"), (512, "prompt")])
def test_more_answers_than_there_are_places_are_a_mistake_and_no_matter_of_waiting(answers: int, field: str) -> None:
    wait_queue = WaitQueue(4, 10**6, slots=3)
    with pytest.raises(InvalidInput, match=f"{answers} answers.* 7 places.*GLM_ENGINE_SLOTS") as caught:
        wait_queue.enter_all(answers, 5)
    assert caught.value.field == field and wait_queue.requests == wait_queue.tokens == 0


def test_as_many_answers_as_there_are_places_are_let_in_by_an_idle_engine_only() -> None:
    """Those that have a slot need no place to wait in, though the engine has not taken them yet."""
    wait_queue = WaitQueue(4, 10**6, slots=3)
    first = wait_queue.enter(5)
    with pytest.raises(Overloaded):
        wait_queue.enter_all(7, 5)
    assert (wait_queue.requests, wait_queue.tokens) == (1, 5)
    first.start()
    with pytest.raises(Overloaded):
        wait_queue.enter_all(7, 5)
    first.leave()
    for ticket in wait_queue.enter_all(7, 5):
        ticket.leave()
    assert wait_queue.requests == wait_queue.tokens == 0


def test_a_prompt_longer_than_the_line_allows_may_wait_alone_with_all_its_answers() -> None:
    wait_queue = WaitQueue(max_requests=3, max_tokens=100)
    assert len(list(wait_queue.enter_all(3, 500))) == 3


def test_answers_that_an_idle_engine_cannot_end_in_time_may_try() -> None:
    """A refusal would come as often as they are asked for; of the time they take, their 504 tells."""
    clock = Clock()
    wait_queue = WaitQueue(64, 10**6, clock, slots=2)
    wait_queue.observe_pace(0.1)
    wait_queue.observe_answer(100, 100, 0.0)
    tickets = wait_queue.enter_all(8, 5, 100, 20.0)  # four rows of two, 10 s each
    assert not wait_queue.late()
    with pytest.raises(Overloaded):  # who comes now is refused: later there may be room
        wait_queue.enter(5, 100, 20.0)
    tickets.leave()
    wait_queue.enter(5, 100, 20.0)


def test_a_request_that_has_begun_is_not_refused_the_rest_of_its_answers() -> None:
    """Its stream broke with a 503 in the middle, and what there was of its other answers was thrown away."""
    clock = Clock()
    wait_queue = WaitQueue(64, 10**6, clock, slots=2)
    wait_queue.observe_pace(0.1)
    wait_queue.observe_answer(100, 10, 0.0)
    wait_queue.enter(5, 100, 50.0).start()
    first, *_ = tickets = wait_queue.enter_all(4, 5, 100, 4.0)  # an answer takes 1 s
    other = wait_queue.enter(5, 100, 4.0)
    for _ in range(50):
        wait_queue.observe_answer(100, 100, 0.0)  # it takes 10 s now
    assert {*wait_queue.late()} == {*(ticket.job for ticket in tickets), other.job} - {first.job}
    first.start()
    assert wait_queue.late() == {other.job}
    tickets.leave()
    other.leave()
    assert wait_queue.requests == wait_queue.tokens == 0


class LongRows:
    """Eight slots, two long rows, and answers of 10 s."""

    def __init__(self, **more: float) -> None:
        self.clock = Clock()
        self.queue = WaitQueue(64, 10**6, self.clock, slots=8, long_rows=2, **more)
        self.queue.observe_pace(0.1)
        self.queue.observe_answer(100, 100, 0.0)

    def enter(self, left_s: float = 1000.0, is_long: bool = True) -> Ticket:
        return self.queue.enter_all(1, 5, 100, left_s, is_long).one

    def run(self, is_long: bool = True) -> Ticket:
        ticket = self.enter(is_long=is_long)
        ticket.start()
        return ticket


def test_who_needs_a_long_row_waits_for_one_though_slots_are_free() -> None:
    """It was let in as if any free slot would do, and ran out of time."""
    rows = LongRows()
    rows.run()
    rows.run()
    rows.enter(18.0).leave()
    with pytest.raises(Overloaded):
        rows.enter(15.0)
    assert not rows.queue.late()
    rows.enter(9.0, is_long=False)  # finds room at once
    assert rows.queue.requests == 1


def test_who_waits_for_a_long_row_is_late_by_that_and_keeps_nobody_else_waiting() -> None:
    rows = LongRows()
    running = [rows.run(), rows.run()]
    second = [rows.enter(25.0), rows.enter(25.0)]
    with pytest.raises(Overloaded):
        rows.enter(25.0)  # the third row of two
    short = [rows.enter(9.0, is_long=False) for _ in range(6)]
    assert not rows.queue.late()
    rows.clock.now = 14.0  # those that run take longer than others did
    assert rows.queue.late() == set()
    rows.clock.now = 17.0
    assert rows.queue.late() == {ticket.job for ticket in second}
    for ticket in (*running, *second, *short):
        ticket.leave()
    rows.enter(1.0)  # finds room at once


def test_who_outgrows_a_short_row_takes_a_long_one_from_those_who_wait() -> None:
    rows = LongRows()
    growing = [rows.run(is_long=False) for _ in range(2)]
    rows.enter(9.0).leave()
    for ticket in growing:
        ticket.outgrow()
    with pytest.raises(Overloaded):
        rows.enter(9.0)
    growing[0].leave()
    rows.enter(9.0)


def test_a_long_row_is_no_place_for_more_long_prompts_than_may_wait() -> None:
    rows = LongRows()
    with pytest.raises(InvalidInput, match="66 places for prompts as long as this") as caught:
        rows.queue.enter_all(67, 5, is_long=True)
    assert caught.value.field == "prompt"
    assert len(list(rows.queue.enter_all(66, 5, is_long=True))) == 66
    with pytest.raises(Overloaded):  # 64 of them wait, whatever slots are free
        rows.enter()


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
