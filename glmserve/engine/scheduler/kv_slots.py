"""Which sequence holds which KV row: decoded rows are 0 to n-1, prefilling rows lie above, then cached prefixes.

A row keeps its KV after its request has ended: a request whose prompt has the same prefix reuses it and prefills the
rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmserve.engine.request import Sequence

LEAST_SHARED = 16
"""A shared prefix of fewer tokens is not worth a copy."""


@dataclass(frozen=True)
class Move:
    """Copy the first `length` tokens of KV from one row to another."""

    source: int
    target: int
    length: int


@dataclass
class CachedPrefix:
    """KV kept in a row without a request: the keys i64 [tokens] of its tokens, and the scope that may reuse it."""

    keys: np.ndarray
    scope: int
    used: int


class SlotTable:
    """Owned by the engine's thread. A decode step binds rows [0, n) without holes, and never touches a prefilling row.

    At most `slots` requests hold a row; further `rows` hold cached prefixes only. Moves must be carried out in the
    order in which they are returned, before the next step.
    """

    def __init__(self, slots: int, rows: int) -> None:
        assert rows >= slots
        self.slots, self.rows = slots, rows
        self.decoding: list[Sequence] = []
        self.prefilling: list[Sequence] = []
        self._cached: dict[int, CachedPrefix] = {}
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
        return sum(sequence.length for sequence in (*self.decoding, *self.prefilling))

    @property
    def cached_tokens(self) -> int:
        return sum(len(cached.keys) for cached in self._cached.values())

    def start(self, sequence: Sequence) -> list[Move]:
        """Gives a sequence the next row; its `length` then counts the tokens of the cached prefix."""
        assert self.can_start
        row = self.used
        assert not self.prefilling or self.prefilling[-1].row == row - 1
        self.prefilling.append(sequence)
        return self._place(sequence, row)

    def overtake(self, sequence: Sequence) -> list[Move]:
        """As `start`, but in front of the one that is prefilling, which makes room: its KV moves a row up. The caller
        prefills it whole in the next step."""
        assert self.can_start and len(self.prefilling) == 1
        row, behind, moves = len(self.decoding), self.prefilling[0], list[Move]()
        if behind.row == row:
            moves = [*self._make_room(row + 1), Move(row, row + 1, behind.length)]
            behind.row = row + 1
        moves += self._place(sequence, row)
        self.prefilling.insert(0, sequence)
        return moves

    def _place(self, sequence: Sequence, row: int) -> list[Move]:
        """Gives a sequence a row that no other holds, with the longest prefix of its prompt that is cached."""
        sequence.row = row  # held from now on
        donor, shared = self._donor(sequence)
        if donor in self._cached:
            if shared == len(self._cached[donor].keys):
                del self._cached[donor]  # the conversation goes on: nothing of the old row is left over
            else:
                self._cached[donor].used = self._tick()
        moves = self._make_room(row, avoid=(donor,))  # `row` itself may be the donor: its KV stays where it is
        if donor is not None and donor != row:
            moves.append(Move(donor, row, shared))
        sequence.length, sequence.cached = shared, shared
        return moves

    def shared(self, sequence: Sequence) -> int:
        """Tokens of the cached prefix that `start` would reuse."""
        return self._donor(sequence)[1]

    def promote(self) -> list[Move]:
        """The first prefilling sequence joins the decoded rows; returns the moves that keep those without holes."""
        sequence = self.prefilling.pop(0)
        target = len(self.decoding)
        moves = []
        if sequence.row != target:
            moves = [*self._make_room(target, avoid=(sequence.row,)), Move(sequence.row, target, sequence.length)]
            sequence.row = target
        self.decoding.append(sequence)
        return moves

    def retire(self, sequence: Sequence, keep: bool = True) -> list[Move]:
        """Frees a sequence's row, whose KV stays cached if `keep`; the last decoded row fills the hole."""
        entry = CachedPrefix(sequence.keys, sequence.request.scope, self._tick())
        keep = keep and len(entry.keys) >= LEAST_SHARED
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
            if keep:
                self._cached[sequence.row] = entry
            return []
        last = self.decoding.pop()
        if last is sequence:
            if keep:
                self._cached[sequence.row] = entry
            return []
        assert self.decoding[sequence.row] is sequence
        moves = []
        refuge = self._refuge(avoid=(last.row,)) if keep else None
        if refuge is not None:
            moves.append(Move(sequence.row, refuge, sequence.length))
            self._cached[refuge] = entry
        moves.append(Move(last.row, sequence.row, last.length))
        last.row = sequence.row
        self.decoding[sequence.row] = last
        return moves

    def drop_all(self) -> list[Sequence]:
        """Removes every sequence and cached prefix, when the rows' contents can no longer be trusted."""
        ended = [*self.decoding, *self.prefilling]
        self.decoding.clear()
        self.prefilling.clear()
        self._cached.clear()
        return ended

    def parked(self, first: int, count: int) -> np.ndarray:
        """Tokens i32 [count] in rows [first, first + count): a padded step may write behind them."""
        lengths = {sequence.row: sequence.length for sequence in self.prefilling}
        lengths |= {row: len(cached.keys) for row, cached in self._cached.items()}
        return np.array([lengths.get(row, 0) for row in range(first, first + count)], np.int32)

    def check(self) -> None:
        """Raises AssertionError when the invariant is broken."""
        assert [r.row for r in self.decoding] == list(range(len(self.decoding)))
        assert self.used <= self.slots
        held = [r.row for r in (*self.decoding, *self.prefilling)]
        assert len(set(held)) == len(held) and all(row < self.rows for row in held)
        assert not set(held) & set(self._cached), "a cached prefix lies in a row that a sequence holds"
        assert all(row < self.rows for row in self._cached)

    def _donor(self, sequence: Sequence) -> tuple[int | None, int]:
        """The row with the longest prefix of a prompt, and its length; the last token is always prefilled."""
        wanted, scope = sequence.prompt.keys[:-1], sequence.request.scope
        rows = [(row, cached.keys, cached.scope) for row, cached in self._cached.items()]
        rows += [(r.row, r.prompt.keys[: r.length], r.request.scope) for r in self.decoding]
        best, most = None, LEAST_SHARED - 1
        for row, keys, owner in rows:
            if owner == scope and (shared := _common(wanted, keys)) > most:
                best, most = row, shared
        return best, most if best is not None else 0

    def _make_room(self, row: int, avoid: tuple[int | None, ...] = ()) -> list[Move]:
        """Empties a row: its cached prefix moves to an empty or less recently used row, or is dropped."""
        cached = self._cached.pop(row, None)
        if cached is None:
            return []
        refuge = self._refuge((row, *avoid), older_than=cached.used)
        if refuge is None:
            return []
        self._cached[refuge] = cached
        return [Move(row, refuge, len(cached.keys))]

    def _refuge(self, avoid: tuple[int | None, ...], older_than: int | None = None) -> int | None:
        """A row without a sequence: the last empty one, else the least recently used."""
        held = {sequence.row for sequence in (*self.decoding, *self.prefilling)}
        free = [row for row in range(self.rows) if row not in held and row not in avoid]
        empty = [row for row in free if row not in self._cached]
        if empty:
            return empty[-1]
        oldest = min(free, key=lambda row: self._cached[row].used, default=None)
        if oldest is None or (older_than is not None and self._cached[oldest].used > older_than):
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
