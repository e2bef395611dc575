"""Several prompts of one request are answered together, and keep none of each other out."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from gateway.chat.generation import Answer, Event, Piece
from gateway.chat.side_by_side import side_by_side
from gateway.triton.backend import Cancellation
from glmserve.errors import Overloaded

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


def test_what_has_begun_to_speak_begins_no_second_time() -> None:
    with pytest.raises(Overloaded):
        _all(Engine(1, speaks_first=True))
