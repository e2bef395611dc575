"""Which request holds which KV row: decoded rows are always 0 to n-1, what is being read lies above, then what is warm.

A row whose request has ended stays warm: a request whose prompt begins like it takes that KV over and reads the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmserve.engine.request import Sequence

LEAST_SHARED = 16
"""Tokens below which taking KV over is not worth a copy."""


@dataclass(frozen=True)
class Move:
    """Copy the first `length` tokens of KV from one row to another."""

    source: int
    target: int
    length: int


@dataclass
class CachedPrefix:
    """What a row without a request still holds: the keys i64 [tokens] of its KV, and for whom."""

    keys: np.ndarray
    scope: int
    used: int


class SlotTable:
    """Owned by the engine's thread. A decode step binds rows [0, n) without holes, and never touches a prefill.

    `slots` requests hold rows at a time; `rows` above that number keep more prompts warm. Moves must be carried out in
    the order in which they are returned, before the next step.
    """

    def __init__(self, slots: int, rows: int) -> None:
        assert rows >= slots
        self.slots, self.rows = slots, rows
        self.decoding: list[Sequence] = []
        self.prefilling: list[Sequence] = []
        self._warm: dict[int, CachedPrefix] = {}
        self._clock = 0

    @property
    def used(self) -> int:
        return len(self.decoding) + len(self.prefilling)

    @property
    def can_start(self) -> bool:
        return self.used < self.slots

    @property
    def tokens(self) -> int:
        """Tokens whose KV belongs to a request now."""
        return sum(running.length for running in (*self.decoding, *self.prefilling))

    @property
    def warm_tokens(self) -> int:
        return sum(len(warm.keys) for warm in self._warm.values())

    def start(self, running: Sequence) -> list[Move]:
        """Gives a request the next row; its `length` then counts the tokens that are there already."""
        assert self.can_start
        row = self.used
        assert not self.prefilling or self.prefilling[-1].row == row - 1
        donor, shared = self._donor(running)
        if donor in self._warm:
            if shared == len(self._warm[donor].keys):
                del self._warm[donor]  # the conversation goes on: nothing of the old row is left over
            else:
                self._warm[donor].used = self._tick()
        moves = self._make_room(row, avoid=(donor,))  # `row` itself may be the donor: its KV stays where it is
        if donor is not None and donor != row:
            moves.append(Move(donor, row, shared))
        running.row, running.length, running.cached = row, shared, shared
        self.prefilling.append(running)
        return moves

    def shared(self, running: Sequence) -> int:
        """Tokens that `start` would find."""
        return self._donor(running)[1]

    def promote(self) -> list[Move]:
        """The first request being read joins the decoded rows; the moves it needs when rows below have become free."""
        running = self.prefilling.pop(0)
        target = len(self.decoding)
        moves = []
        if running.row != target:
            moves = [*self._make_room(target, avoid=(running.row,)), Move(running.row, target, running.length)]
            running.row = target
        self.decoding.append(running)
        return moves

    def retire(self, running: Sequence, keep: bool = True) -> list[Move]:
        """Frees a request's row, whose KV stays warm if `keep`; the last decoded row closes the hole."""
        entry = CachedPrefix(running.keys, running.request.scope, self._tick())
        keep = keep and len(entry.keys) >= LEAST_SHARED
        if running in self.prefilling:
            self.prefilling.remove(running)
            if keep:
                self._warm[running.row] = entry
            return []
        last = self.decoding.pop()
        if last is running:
            if keep:
                self._warm[running.row] = entry
            return []
        assert self.decoding[running.row] is running
        moves = []
        refuge = self._refuge(avoid=(last.row,)) if keep else None
        if refuge is not None:
            moves.append(Move(running.row, refuge, running.length))
            self._warm[refuge] = entry
        moves.append(Move(last.row, running.row, last.length))
        last.row = running.row
        self.decoding[running.row] = last
        return moves

    def drop_all(self) -> list[Sequence]:
        """Takes every request out and forgets what was warm, when the rows' contents are no longer to be trusted."""
        ended = [*self.decoding, *self.prefilling]
        self.decoding.clear()
        self.prefilling.clear()
        self._warm.clear()
        return ended

    def parked(self, first: int, count: int) -> np.ndarray:
        """Tokens i32 [count] in rows [first, first + count): where a write harms nothing, as padding of a bucket."""
        lengths = {running.row: running.length for running in self.prefilling}
        lengths |= {row: len(warm.keys) for row, warm in self._warm.items()}
        return np.array([lengths.get(row, 0) for row in range(first, first + count)], np.int32)

    def check(self) -> None:
        """Raises AssertionError when the invariant is broken."""
        assert [r.row for r in self.decoding] == list(range(len(self.decoding)))
        assert self.used <= self.slots
        held = [r.row for r in (*self.decoding, *self.prefilling)]
        assert len(set(held)) == len(held) and all(row < self.rows for row in held)
        assert not set(held) & set(self._warm), "a warm row belongs to nobody"
        assert all(row < self.rows for row in self._warm)

    def _donor(self, running: Sequence) -> tuple[int | None, int]:
        """The row that shares most with a prompt, of which at least the last token must be read, and how much."""
        wanted, scope = running.request.prompt.keys[:-1], running.request.scope
        rows = [(row, warm.keys, warm.scope) for row, warm in self._warm.items()]
        rows += [(r.row, r.request.prompt.keys[: r.length], r.request.scope) for r in self.decoding]
        best, most = None, LEAST_SHARED - 1
        for row, keys, owner in rows:
            if owner == scope and (shared := _common(wanted, keys)) > most:
                best, most = row, shared
        return best, most if best is not None else 0

    def _make_room(self, row: int, avoid: tuple[int | None, ...] = ()) -> list[Move]:
        """Empties a row: what is warm there goes to a row that is empty or was used less recently, or is forgotten."""
        warm = self._warm.pop(row, None)
        if warm is None:
            return []
        refuge = self._refuge((row, *avoid), older_than=warm.used)
        if refuge is None:
            return []
        self._warm[refuge] = warm
        return [Move(row, refuge, len(warm.keys))]

    def _refuge(self, avoid: tuple[int | None, ...], older_than: int | None = None) -> int | None:
        """A row that nobody holds: the last empty one, else the least recently used."""
        held = {running.row for running in (*self.decoding, *self.prefilling)}
        free = [row for row in range(self.rows) if row not in held and row not in avoid]
        empty = [row for row in free if row not in self._warm]
        if empty:
            return empty[-1]
        oldest = min(free, key=lambda row: self._warm[row].used, default=None)
        if oldest is None or (older_than is not None and self._warm[oldest].used > older_than):
            return None
        return oldest

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _common(wanted: np.ndarray, keys: np.ndarray) -> int:
    """How many keys two rows share from their beginning."""
    count = min(len(wanted), len(keys))
    different = wanted[:count] != keys[:count]
    return int(different.argmax()) if different.any() else count
