"""Which request holds which KV row: the rows being decoded are always 0 to n-1, the one being prefilled lies above."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.engine.request import Running


@dataclass(frozen=True)
class Move:
    """Copy the first `length` tokens of KV from one row to another."""

    source: int
    target: int
    length: int


class SlotTable:
    """Owned by the engine's thread. A decode step binds rows [0, n) without holes, and never touches a prefill."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.decoding: list[Running] = []
        self.prefilling: Running | None = None

    @property
    def used(self) -> int:
        return len(self.decoding) + (self.prefilling is not None)

    @property
    def can_start(self) -> bool:
        """Whether a request may begin its prefill: one does so at a time."""
        return self.prefilling is None and len(self.decoding) < self.slots

    def start(self, running: Running) -> None:
        """Gives the row after the decoded ones to a request that begins its prefill."""
        assert self.can_start
        running.row = len(self.decoding)
        self.prefilling = running

    def promote(self) -> Move | None:
        """The prefilled request joins the decoded rows; the move it needs when rows below it have become free."""
        running = self.prefilling
        assert running is not None
        self.prefilling = None
        target = len(self.decoding)
        move = None if running.row == target else Move(running.row, target, running.length)
        running.row = target
        self.decoding.append(running)
        return move

    def retire(self, running: Running) -> Move | None:
        """Frees a request's row; the move that closes the hole with the last decoded row."""
        if running is self.prefilling:
            self.prefilling = None
            return None
        last = self.decoding.pop()
        if last is running:
            return None
        assert self.decoding[running.row] is running
        move = Move(last.row, running.row, last.length)
        last.row = running.row
        self.decoding[running.row] = last
        return move

    def check(self) -> None:
        """Raises AssertionError when the invariant is broken."""
        assert [r.row for r in self.decoding] == list(range(len(self.decoding)))
        assert self.used <= self.slots
        if self.prefilling is not None:
            assert len(self.decoding) <= self.prefilling.row < self.slots
            assert self.prefilling not in self.decoding
