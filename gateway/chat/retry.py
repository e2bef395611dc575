"""One retry for an answer whose Triton went down before its client was told a word of it, and not too many retries;
and another Triton for an answer that one has no places for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from gateway.triton.errors import lacks_places
from glmserve.errors import BackendDown, GlmServeError, Overloaded

T = TypeVar("T")
_SHARE = 0.1
_MOST_SAVED = 3.0
_MOST_ASKED = 4
"""Tritons that are asked for a place, of those that are not known to be full."""


class RetryBudget:
    """At most one retry for ten requests, and a few more for a start; shared by all threads of a worker.

    When every Triton fails, retries would double its work just then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved = _MOST_SAVED

    def earn(self) -> None:
        """A request was begun for the first time."""
        with self._lock:
            self._saved = min(_MOST_SAVED, self._saved + _SHARE)

    def spend(self) -> bool:
        """Whether there is a retry left; takes it."""
        with self._lock:
            has_one = self._saved >= 1
            self._saved -= has_one
            return has_one


def with_one_retry(
    begin: Callable[[], T],
    request_id: str,
    budget: RetryBudget | None = None,
    may_help: Callable[[], bool] = lambda: True,
) -> T:
    """What `begin` returns; runs it a second time, on another replica, when it raises BackendDown.

    `begin` must return before the client is told anything: for a stream with its first event, else with the whole
    answer. There is no second time without a retry in the `budget`, or when `may_help` says that no replica is ready.
    """
    if budget is not None:
        budget.earn()
    try:
        return begin()
    except BackendDown:
        if not may_help() or not (budget is None or budget.spend()):
            raise
        structlog.get_logger().warning("answer_begun_anew", request_id=request_id)
    return begin()


def where_there_is_room(begin: Callable[[], T], has_room: Callable[[GlmServeError, int], bool]) -> T:
    """What `begin` returns; runs it again, on another replica, when one has no places for it and `has_room` says that
    others may have some. A refusal is cheap, and who refused counts as full for a while: so this needs no budget.

    Where some are full now and others never have so many places, that is Overloaded.
    """
    busy: Overloaded | None = None
    for asked in range(1, _MOST_ASKED):
        try:
            return begin()
        except GlmServeError as error:
            if not lacks_places(error):
                raise
            busy = error if isinstance(error, Overloaded) else busy
            if not has_room(error, asked):
                raise busy or error from None
    return begin()
