"""An answer whose Triton dies is begun once more, unless its client was told a word of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from gateway.chat.generation import Answer, Event, Piece, started, whole
from gateway.chat.retry import RetryBudget, with_one_retry
from glmserve.errors import BackendDown, Overloaded

ANSWER = Answer("red", "", "stop", 1)
Script = list[Event | BackendDown | Overloaded]


def _beginning(*scripts: Script) -> Callable[[], Generator[Event]]:
    left = list(scripts)

    def begin() -> Generator[Event]:
        for event in left.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event

    return begin


def _told(begin: Callable[[], Generator[Event]], is_whole: bool) -> list[Event]:
    """What a client is told of an answer, whole or streamed."""
    if is_whole:
        return [with_one_retry(lambda: whole(begin()), "r1")]
    first, rest = with_one_retry(lambda: started(begin()), "r1")
    return [first, *rest]


@pytest.mark.parametrize(
    ("is_whole", "first", "told"),
    [
        (False, [BackendDown()], [Piece("red"), ANSWER]),
        (True, [BackendDown()], [ANSWER]),
        (True, [Piece("re"), BackendDown()], [ANSWER]),
    ],
)
def test_what_nobody_was_told_of_is_begun_anew(is_whole: bool, first: Script, told: list[Event]) -> None:
    with capture_logs() as logs:
        assert _told(_beginning(first, [Piece("red"), ANSWER]), is_whole) == told
    assert [entry["event"] for entry in logs] == ["answer_begun_anew"]


@pytest.mark.parametrize("scripts", [[[Piece("re"), BackendDown()]], [[Overloaded()]], [[BackendDown()]] * 2])
def test_a_second_failure_a_refusal_and_a_stream_that_has_begun_end_it(scripts: list[Script]) -> None:
    with capture_logs(), pytest.raises((BackendDown, Overloaded)):
        _told(_beginning(*scripts), is_whole=False)


def _fails() -> Answer:
    raise BackendDown


def test_in_a_storm_one_request_in_ten_is_begun_anew() -> None:
    """All of 500 requests fail at their first try."""
    budget, retried = RetryBudget(), 0
    for _ in range(500):
        with capture_logs() as logs, suppress(BackendDown):
            with_one_retry(_fails, "r1", budget)
        retried += len(logs)
    assert 45 <= retried <= 50 + 3


def test_a_lone_triton_that_just_died_is_not_asked_again() -> None:
    with capture_logs() as logs, pytest.raises(BackendDown):
        with_one_retry(_fails, "r1", RetryBudget(), lambda: False)
    assert logs == []
