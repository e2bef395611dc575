"""Joins the events of several answers to one request into one row of events with a single end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from glmserve.contract import Finish
from glmserve.engine.request import Done, Ended, Event, Failed, Tokens


class AnswerGroup:
    """The answers to one request; any thread may bring an event."""

    def __init__(self, emit: Callable[[Event], None], answers: int) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._finishes = [Finish.RUNNING] * answers
        self._stop_tokens = [-1] * answers
        self._cached_tokens = 0
        self.has_failed = False
        """One answer failed, and with it the request: the others are wanted no more."""

    def receiver(self, number: int) -> Callable[[Event], None]:
        """The `emit` of one answer, counted from 0."""
        return lambda event: self._receive(number, event)

    def _receive(self, number: int, event: Event) -> None:
        with self._lock:  # held while emitting, so that nothing follows the last event
            if self.has_failed:
                return
            if isinstance(event, Done):
                event = self._ended(number, event)
            elif isinstance(event, Failed):
                self.has_failed = True
            elif isinstance(event, Tokens):
                event = replace(event, number=number)
            self._emit(event)

    def _ended(self, number: int, done: Done) -> Event:
        """The tokens that the first answer found cached count: those of the others are the first one's own prompt."""
        self._finishes[number] = done.finish
        self._stop_tokens[number] = next(iter(done.stop_tokens), -1)
        if number == 0:
            self._cached_tokens = done.cached_tokens
        finishes = tuple(self._finishes)
        if Finish.RUNNING in finishes:
            return Ended(finishes)
        return replace(
            done,
            finish=finishes[0],
            cached_tokens=self._cached_tokens,
            finishes=finishes,
            stop_tokens=tuple(self._stop_tokens) if max(self._stop_tokens) >= 0 else (),
        )
