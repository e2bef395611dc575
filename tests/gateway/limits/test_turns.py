"""Dear work is done by one caller after another, whoever has more of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from eventually import eventually

from gateway.deadline import Deadline
from gateway.limits.turns import Turns
from glmserve.errors import DeadlineExceeded

WAIT_S = 20.0


class Workers:
    """Threads that each take a turn and hold it until they are told to end; `order` is who had one."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.order, self.waiting = turns, list[str](), 0
        self.threads: list[threading.Thread] = []

    def add(self, caller: str) -> None:
        before = self.count()
        thread = threading.Thread(target=self._work, args=(caller,), daemon=True)
        self.threads.append(thread)
        thread.start()
        assert eventually(lambda: self.count() > before)

    def count(self) -> int:
        with self.turns._lock:
            return sum(map(len, self.turns._waiting.values())) + len(self.order)

    def _work(self, caller: str) -> None:
        with self.turns.take(caller, Deadline.after(WAIT_S)):
            self.order.append(caller)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(WAIT_S)


@contextmanager
def held(turns: Turns, caller: str) -> Iterator[Workers]:
    """A turn that is held while others come."""
    workers = Workers(turns)
    with turns.take(caller, Deadline.after(WAIT_S)):
        yield workers
    workers.join()


def test_callers_take_turns_however_much_one_of_them_brings() -> None:
    with held(Turns(), "first") as workers:
        for caller in ("greedy", "greedy", "greedy", "modest", "other"):
            workers.add(caller)
    assert workers.order == ["greedy", "modest", "other", "greedy", "greedy"]


def test_one_caller_never_has_two_turns_at_a_time() -> None:
    with held(Turns(2), "greedy") as workers:
        workers.add("greedy")
        workers.add("modest")
        assert eventually(lambda: workers.order == ["modest"])
    assert workers.order == ["modest", "greedy"]


def test_who_waits_in_vain_leaves_and_takes_nobodys_turn() -> None:
    turns = Turns()
    with held(turns, "first") as workers:
        with pytest.raises(DeadlineExceeded), turns.take("late", Deadline.after(0.01)):
            pass
        workers.add("next")
    assert workers.order == ["next"]
    assert not turns._waiting
    assert turns._free == 1


def test_a_turn_comes_back_when_its_work_fails() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="broken"), turns.take("first", Deadline.after(WAIT_S)):
        raise ValueError("broken")
    with turns.take("first", Deadline.after(WAIT_S)):
        assert turns._free == 0
