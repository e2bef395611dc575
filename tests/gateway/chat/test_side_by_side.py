"""Several prompts of one request are answered together, and keep none of each other out."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from gateway.chat.generation import Answer, Event, Piece
from gateway.chat.side_by_side import side_by_side
from gateway.triton.backend import Cancellation
from glmserve.errors import Cancelled, DeadlineExceeded, Overloaded

WAIT_S, PROMPTS = 10, 8


class Engine:
    """Answers a prompt with its number, as long as no more than so many are there at a time; refuses others."""

    def __init__(self, places: int, speaks_first: bool = False) -> None:
        self.places, self.speaks_first = places, speaks_first
        self.running = self.most = self.refusals = 0
        self.lock = threading.Lock()
        self.full = threading.Event()

    def answer(self, number: int) -> Generator[Event]:
        if self.speaks_first:
            yield Piece("begun")
        with self.lock:
            if self.running == self.places:
                self.refusals += 1
                self.full.set()
                raise Overloaded
            self.running += 1
            self.most = max(self.most, self.running)
        self.full.wait(WAIT_S if self.places < PROMPTS else 0)  # until another one was refused
        yield Piece(str(number))
        with self.lock:
            self.running -= 1
        yield _answer(str(number))


def _answer(content: str) -> Answer:
    return Answer(content, "", "stop", 1)


def _all(engine: Engine) -> list[Event]:
    begin = [lambda number=number: engine.answer(number) for number in range(PROMPTS)]
    return list(side_by_side(begin, 1, Cancellation()))  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [1, 3, PROMPTS])
def test_prompts_that_find_no_place_beside_their_own_fellows_wait_for_these(places: int) -> None:
    """Too many at once looked like a flood to an idle engine: all of them were refused, as often as they came."""
    engine = Engine(places)
    *pieces, last = _all(engine)
    assert isinstance(last, Answer) and [each.content for each in last.answers] == [str(n) for n in range(PROMPTS)]
    assert sorted((piece.index, piece.content) for piece in pieces if isinstance(piece, Piece)) == [
        (n, str(n)) for n in range(PROMPTS)
    ]
    assert engine.most <= places and (engine.refusals > 0 or places == PROMPTS)


def test_where_others_take_all_places_the_request_is_refused() -> None:
    engine = Engine(2)
    engine.running = 2
    with pytest.raises(Overloaded):
        _all(engine)


class Visited(Engine):
    """Somebody else takes the only place when so many of the prompts are answered, and keeps it for half a second."""

    def __init__(self, after: int) -> None:
        super().__init__(1)
        self.after, self.ended = after, 0

    def answer(self, number: int) -> Generator[Event]:
        yield from super().answer(number)
        with self.lock:
            self.ended += 1
            if self.ended == self.after:
                self.running = 1
                threading.Timer(0.5, self.leave).start()

    def leave(self) -> None:
        self.running = 0


@pytest.mark.parametrize("after", [1, 3, PROMPTS - 1])
def test_where_others_take_all_places_in_the_middle_the_rest_waits_for_one(after: int) -> None:
    """What was answered by then was thrown away, and a stream broke; at a busy service nearly every one did."""
    engine = Visited(after)
    *_, last = _all(engine)
    assert isinstance(last, Answer) and [each.content for each in last.answers] == [str(n) for n in range(PROMPTS)]
    assert engine.refusals < 50


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("speaks", [True, False])
def test_prompts_that_have_not_begun_when_time_runs_out_are_empty_for_who_wants_what_there_is(
    partial: bool, speaks: bool
) -> None:
    """As several answers to one prompt are; they broke the stream of the others."""

    def begin(number: int) -> Generator[Event]:
        if number == 0 and speaks:
            time.sleep(0.1)
            return Engine(PROMPTS).answer(number)
        time.sleep(0.3)
        if number == 1 and not refused.is_set():
            refused.set()
            raise Overloaded
        raise DeadlineExceeded

    refused = threading.Event()
    events = side_by_side([lambda n=n: begin(n) for n in range(4)], 2, Cancellation(), partial)  # type: ignore[arg-type]
    if not partial or not speaks:
        with pytest.raises(DeadlineExceeded):
            list(events)
        return
    *_, last = events
    assert isinstance(last, Answer) and last.completion_tokens == 1
    told = [(each.content, each.finish_reason, each.timed_out) for each in last.answers]
    assert told == [("0", "stop", False), *[("", "length", True)] * 6]  # of the first prompt there is one answer


def test_who_leaves_while_it_waits_for_a_place_is_told_soon() -> None:
    engine, cancellation = Engine(1), Cancellation()
    engine.full.set()

    def begin(number: int) -> Generator[Event]:
        if cancellation.is_cancelled:
            raise Cancelled
        if number == 1:
            raise Overloaded
        return engine.answer(number)

    events = side_by_side([lambda: begin(0), lambda: begin(1)], 1, cancellation)
    assert next(events) == Piece("0")
    threading.Timer(0.2, cancellation.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        list(events)
    assert time.monotonic() - began < 5


def test_what_has_begun_to_speak_begins_no_second_time() -> None:
    with pytest.raises(Overloaded):
        _all(Engine(1, speaks_first=True))
