"""The checker of histories finds every forgery, and nothing in an honest history."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPResponse
from types import SimpleNamespace
from typing import cast

import pytest
from clients import Recorder, _Exchange, questions
from history import Ended, Event, How, PieceCame, Rule, Sent, Terms, check, compare_levels, tally
from hypothesis import given
from hypothesis import strategies as st

ANSWER = "A red cross."


def honest() -> list[Event]:
    """A whole stream, a stream that an error ended, one that its client left, a refusal and a whole answer."""
    return [
        Sent(0.0, "a", "1", "q1", ANSWER),
        Sent(0.1, "b", "2", "q2", "Two blue rings."),
        PieceCame(0.2, "a", "A red"),
        PieceCame(0.2, "b", "Two "),
        PieceCame(0.3, "a", " cross"),
        PieceCame(0.3, "b", "blue"),
        PieceCame(0.4, "a", "."),
        Ended(0.5, "a", How.DONE, 200, None, ANSWER, None, "a"),
        Ended(0.5, "b", How.ERROR, 200, "backend_down", None, None, "b"),
        Sent(0.6, "c", "1", "q1", ANSWER),
        PieceCame(0.7, "c", "A"),
        Ended(0.7, "c", How.LEFT, 200),
        Sent(0.8, "d", "2", "q2", "Two blue rings."),
        Ended(0.9, "d", How.STATUS, 503, "backend_down", None, "2", "d"),
        Sent(1.0, "e", "2", "q2", "Two blue rings."),
        Ended(1.1, "e", How.DONE, 200, None, "Two blue rings.", None, "e"),
    ]


def index_of(history: list[Event], kind: type, request_id: str, which: int = 0) -> int:
    return [i for i, event in enumerate(history) if isinstance(event, kind) and event.request_id == request_id][which]


def changed(history: list[Event], at: int, **fields: object) -> list[Event]:
    return [*history[:at], replace(history[at], **fields), *history[at + 1 :]]


def without(history: list[Event], at: int) -> list[Event]:
    return history[:at] + history[at + 1 :]


def doubled(history: list[Event], at: int) -> list[Event]:
    return [*history[: at + 1], *history[at:]]


def exchanged(history: list[Event], one: int, other: int) -> list[Event]:
    """The two events trade their texts."""
    first, second = history[one], history[other]
    return changed(changed(history, one, text=second.text), other, text=first.text)  # type: ignore[union-attr]


PIECE_A, PIECE_B = (lambda h: index_of(h, PieceCame, "a")), (lambda h: index_of(h, PieceCame, "b"))
END_A, END_D = (lambda h: index_of(h, Ended, "a")), (lambda h: index_of(h, Ended, "d"))
FORGERIES: dict[str, tuple[Callable[[list[Event]], list[Event]], Rule]] = {
    "a lost piece": (lambda h: without(h, PIECE_A(h)), Rule.RIGHT_TEXT),
    "a lost last piece": (lambda h: without(h, index_of(h, PieceCame, "a", -1)), Rule.WHOLE),
    "a lost piece of a stream that failed": (lambda h: without(h, PIECE_B(h)), Rule.RIGHT_TEXT),
    "a doubled piece": (lambda h: doubled(h, PIECE_A(h)), Rule.RIGHT_TEXT),
    "a doubled last piece": (lambda h: doubled(h, index_of(h, PieceCame, "a", -1)), Rule.RIGHT_TEXT),
    "pieces of two requests swapped": (lambda h: exchanged(h, PIECE_A(h), PIECE_B(h)), Rule.RIGHT_TEXT),
    "pieces reordered": (lambda h: exchanged(h, PIECE_A(h), index_of(h, PieceCame, "a", 1)), Rule.RIGHT_TEXT),
    "a stream cut and called done": (lambda h: changed(h, END_A(h), text="A red"), Rule.RIGHT_TEXT),
    "an answer of another request": (lambda h: changed(h, END_A(h), text="Two blue rings."), Rule.RIGHT_TEXT),
    "an id of another request": (lambda h: changed(h, END_A(h), echoed_id="b"), Rule.OWN_ID),
    "no ending": (lambda h: without(h, END_A(h)), Rule.ONE_ENDING),
    "two endings": (lambda h: doubled(h, END_A(h)), Rule.ONE_ENDING),
    "a piece after the end": (lambda h: [*h, PieceCame(2.0, "a", "!")], Rule.NOTHING_AFTER),
    "an empty piece after the end": (lambda h: [*h, PieceCame(2.0, "a", "")], Rule.NOTHING_AFTER),
    "an error after the end": (lambda h: [*h, Ended(2.0, "a", How.ERROR, 200)], Rule.NOTHING_AFTER),
    "a wrong status": (lambda h: changed(h, END_D(h), status=500, retry_after=None), Rule.STATUS),
    "an answer that is none": (lambda h: changed(h, END_A(h), status=206), Rule.STATUS),
    "a wrong code": (lambda h: changed(h, index_of(h, Ended, "b"), code="internal"), Rule.CODE),
    "no Retry-After": (lambda h: changed(h, END_D(h), retry_after=None), Rule.RETRY_AFTER),
    "a Retry-After that is no number": (lambda h: changed(h, END_D(h), retry_after="soon"), Rule.RETRY_AFTER),
    "a 429 without Retry-After": (lambda h: changed(h, END_D(h), status=429, retry_after=None), Rule.RETRY_AFTER),
    "a broken connection": (lambda h: changed(h, index_of(h, Ended, "b"), how=How.BROKEN), Rule.UNBROKEN),
    "an id used twice": (lambda h: [*h, Sent(3.0, "a", "1", "q1", ANSWER)], Rule.UNIQUE_ID),
    "an answer to nobody": (lambda h: [*h, Ended(3.0, "z", How.DONE, 200, None, "x")], Rule.KNOWN_ID),
    "an end that comes too late": (lambda h: changed(h, END_A(h), at_s=100.0), Rule.IN_TIME),
}


def test_an_honest_history_has_no_violation() -> None:
    assert check(honest()) == []
    assert tally(honest()) == {"done": 2, "error event": 1, "left": 1, "503": 1}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_history_is_found_with_the_request_and_the_rule(name: str) -> None:
    forge, rule = FORGERIES[name]
    found = check(forge(honest()))
    assert rule in {violation.rule for violation in found}, found
    assert len({violation.request_id for violation in found}) <= 2, "only those that were forged"


def test_a_connection_may_break_while_a_fault_breaks_it_and_for_a_client_that_is_cut() -> None:
    history = [Sent(1.0, "a", "1", "q", ANSWER), Ended(2.0, "a", How.BROKEN)]
    assert check(history, Terms(breaks=((1.5, 1.6),))) == check(history, Terms(breaking_clients=frozenset("1"))) == []
    for breaks in (((0.0, 0.9),), ((2.1, 3.0),)):
        assert [violation.rule for violation in check(history, Terms(breaks=breaks))] == [Rule.UNBROKEN]


def test_levels_that_have_grown_are_told() -> None:
    before = {"threads": 10.0, "regions": 2.0, "files": 5.0}
    assert compare_levels(before, {"threads": 12.0, "regions": 2.0, "files": 1.0}, {"threads": 2.0}) == []
    found = compare_levels(before, {"threads": 13.0, "regions": 3.0}, {"threads": 2.0})
    assert [violation.request_id for violation in found] == ["threads", "regions", "files"]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Honest histories: requests that interleave, whose answers share no character with one another."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    lines = []
    for number in range(draw(st.integers(2, 6))):
        answer = "".join(chr(0x4E00 + 100 * number + i) for i in range(chance.randint(2, 12)))
        lines.append(_line(f"r{number}", answer, chance))
    history: list[Event] = []
    while any(lines):
        history.append(chance.choice([line for line in lines if line]).pop(0))
    return history


def _line(request_id: str, answer: str, chance: random.Random) -> list[Event]:
    """The events of one request."""
    how = chance.choice(list(How))
    line: list[Event] = [Sent(0.0, request_id, request_id, "q", answer)]
    if how is How.STATUS:
        return [*line, Ended(1.0, request_id, how, 503, "backend_down", None, "1", request_id)]
    is_stream = how in (How.ERROR, How.LEFT, How.BROKEN) or chance.random() < 0.7
    told = len(answer) if how is How.DONE else chance.randint(0, len(answer))
    at = 0
    while is_stream and at < told:
        size = chance.randint(1, told - at)
        line.append(PieceCame(0.5, request_id, answer[at : at + size]))
        at += size
    code = "backend_down" if how is How.ERROR else None
    return [*line, Ended(1.0, request_id, how, 200, code, answer if how is How.DONE else None, None, request_id)]


TERMS = Terms(breaking_clients=frozenset(f"r{number}" for number in range(6)))


@given(histories())
def test_any_honest_history_passes(history: list[Event]) -> None:
    assert check(history, TERMS) == []


def _forgeries(history: list[Event]) -> list[list[Event]]:
    """Every single forgery of a history that a client could have told from an honest one."""
    found = []
    for at, event in enumerate(history):
        if isinstance(event, Sent):
            found += [without(history, at), [*history, event]]
        elif isinstance(event, Ended):
            found += [without(history, at), doubled(history, at), changed(history, at, echoed_id="other")]
            found += [[*without(history, at), changed(history, at, at_s=1e6)[at]]]
            if event.how is How.DONE:
                found += [changed(history, at, text=event.text[:-1]), changed(history, at, status=500)]  # type: ignore[index]
            elif event.how is How.STATUS:
                found += [changed(history, at, retry_after=None), changed(history, at, status=500)]
        else:
            found.append(doubled(history, at))
            found.append([*without(history, at), event])
            later = [
                i
                for i, other in enumerate(history)
                if i > at and isinstance(other, PieceCame) and other.text != event.text
            ]
            found += [exchanged(history, at, other) for other in later]
            if any(history[other].request_id == event.request_id for other in later):
                found.append(without(history, at))
    return found


@given(histories(), st.data())
def test_any_single_forgery_of_it_fails(history: list[Event], data: st.DataObject) -> None:
    forged = data.draw(st.sampled_from(_forgeries(history)))
    assert check(forged, TERMS)


def test_a_client_that_meant_to_leave_has_not_left_a_stream_that_failed_before() -> None:
    lines = [b'data: {"error": {"code": "backend_down"}}\n', b"\n", b"data: [DONE]\n", b"\n"]
    for most_events, how in ((0, How.LEFT), (1, How.ERROR), (2, How.ERROR)):
        exchange = _Exchange("a", Recorder(), questions()[0])
        reply = SimpleNamespace(readline=iter([*lines, b""]).__next__)
        exchange._read_stream(cast(HTTPResponse, reply), {"status": 200, "echoed_id": "a"}, True, most_events)
        assert [event.how for event in exchange.events if isinstance(event, Ended)] == [how]
