"""Who does dear work next: at most so many at a time, never two of one caller, and the callers in turn."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Generator
from contextlib import contextmanager

from gateway.deadline import Deadline
from glmserve.errors import DeadlineExceeded


class Turns:
    """`at_once` turns at a time. Who waits is bounded by the callers' own concurrency; any thread may ask."""

    def __init__(self, at_once: int = 1) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._working: set[str] = set()
        self._waiting: OrderedDict[str, deque[threading.Event]] = OrderedDict()

    @contextmanager
    def take(self, caller: str, deadline: Deadline) -> Generator[None]:
        """Holds a turn; raises DeadlineExceeded when none comes in time."""
        turn = self._begin(caller)
        try:
            if turn is not None and not turn.wait(deadline.left_s()) and not self._withdraw(caller, turn):
                raise DeadlineExceeded
            yield
        finally:
            if turn is None or self._withdraw(caller, turn):
                self._take_back(caller)

    def _begin(self, caller: str) -> threading.Event | None:
        """What will be set when the turn comes; None where it has come already."""
        with self._lock:
            if self._free and not self._waiting and caller not in self._working:
                self._give_to(caller)
                return None
            turn = threading.Event()
            self._waiting.setdefault(caller, deque()).append(turn)
            self._give()
            return turn

    def _give_to(self, caller: str) -> None:
        self._working.add(caller)
        self._free -= 1

    def _give(self) -> None:
        """To those that waited longest, of the callers that do no such work now."""
        for caller in [each for each in self._waiting if each not in self._working]:
            if not self._free:
                return
            turns = self._waiting.pop(caller)
            turns.popleft().set()
            if turns:
                self._waiting[caller] = turns  # at the end
            self._give_to(caller)

    def _withdraw(self, caller: str, turn: threading.Event) -> bool:
        """Whether the turn came after all."""
        with self._lock:
            if not turn.is_set() and turn in self._waiting.get(caller, ()):
                self._waiting[caller].remove(turn)
                if not self._waiting[caller]:
                    del self._waiting[caller]
            return turn.is_set()

    def _take_back(self, caller: str) -> None:
        with self._lock:
            self._working.discard(caller)
            self._free += 1
            self._give()
