"""Which sequence holds which KV row: of each size of rows the first are decoded, prefilling rows lie above them, then
cached prefixes.

A row keeps its KV after its request has ended: a request whose prompt has the same prefix reuses it and prefills the
rest. A sequence begins in the smallest row that it fits, and moves to a longer one when it has outgrown it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmserve.engine.request import Sequence

LEAST_SHARED = 16
"""A shared prefix of fewer tokens is not worth a copy."""
_ROOM_TO_ANSWER = 8
"""A row is small enough for a prompt that leaves this part of it to the answer."""
_UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class Move:
    """Copy the first `length` tokens of KV from one row to another."""

    source: int
    target: int
    length: int


@dataclass
class CachedPrefix:
    """KV kept in a row without a request: the keys i64 [tokens] of its tokens, and the scope that may reuse it.

    Never a whole short row: padded steps write behind what a row holds, and into its last place where it is full. Of a
    full context nobody takes over the last place, because no prompt is that long.
    """

    keys: np.ndarray
    scope: int
    used: int


@dataclass
class RowGroup:
    """Adjacent rows [first, end) with room for `tokens` each; those that decode lie at its beginning, without holes."""

    first: int
    end: int
    tokens: int
    decoding: list[Sequence]

    @property
    def behind(self) -> int:
        """The row behind the decoded ones."""
        return self.first + len(self.decoding)


class SlotTable:
    """Owned by the engine's thread. A decode step binds rows without holes, and never touches a prefilling row.

    At most `slots` requests hold a row; further `rows` hold cached prefixes only. With `short_rows`, the first so many
    rows have room for `short_tokens` each; every slot has one of them, and a request that needs more holds a long row
    instead. Moves must be carried out in the order in which they are returned, before the next step.
    """

    def __init__(self, slots: int, rows: int, short_rows: int = 0, short_tokens: int = 0) -> None:
        assert rows >= slots and (not short_rows or slots <= short_rows < rows)
        self.slots, self.rows = slots, rows
        self.prefilling: list[Sequence] = []
        self._short = [RowGroup(0, short_rows, short_tokens, [])] if short_rows else []
        self._long = RowGroup(short_rows, rows, _UNBOUNDED, [])
        self._groups = [*self._short, self._long]
        self._cached: dict[int, CachedPrefix] = {}
        self._clock = 0

    @property
    def decoding(self) -> list[Sequence]:
        """Those that decode, in the order of their rows."""
        return [sequence for group in self._groups for sequence in group.decoding]

    @property
    def used(self) -> int:
        return sum(len(group.decoding) for group in self._groups) + len(self.prefilling)

    @property
    def can_start(self) -> bool:
        return self.used < self.slots

    @property
    def in_long_rows(self) -> list[Sequence]:
        return [*self._long.decoding, *(r for r in self.prefilling if r.row >= self._long.first)]

    @property
    def outgrown(self) -> list[Sequence]:
        """Those whose next token has no room in their row."""
        return [r for group in self._short for r in group.decoding if r.length >= group.tokens]

    @property
    def long_rows_left(self) -> int:
        return self._long.end - self._long.first - len(self.in_long_rows)

    def runs(self, reads: bool) -> list[list[Sequence]]:
        """Who decodes in each run of the decoder: all together; but if a prompt is read and rows of both sizes decode,
        the long ones have a run of their own before it."""
        sizes = [list(group.decoding) for group in reversed(self._groups) if group.decoding]
        return sizes if reads and len(sizes) > 1 else [self.decoding]

    def needs_long(self, sequence: Sequence) -> bool:
        """Whether a sequence that starts holds a long row, for its prompt and the beginning of what is left to say."""
        return self._home(sequence) is self._long

    def begins_long(self, tokens: int, max_tokens: int) -> bool:
        """Whether a prompt of so many tokens and an answer of at most `max_tokens` need one of the few long rows, where
        there are short ones; any thread may ask."""
        return bool(self._short) and self._home_of(tokens, max_tokens) is self._long

    def fits(self, sequence: Sequence) -> bool:
        """Whether there is a slot, and a row of the size that it needs."""
        return self.can_start and (self.long_rows_left > 0 or not self.needs_long(sequence))

    def room(self, row: int) -> int:
        """Tokens that a row holds at most, beside the decoder's own limit."""
        return self._group(row).tokens

    def rows_behind(self, row: int) -> int:
        """How many rows of the same size there are from this one on."""
        return self._group(row).end - row

    @property
    def tokens(self) -> int:
        """Tokens whose KV belongs to a request now."""
        return sum(sequence.length for sequence in (*self.decoding, *self.prefilling))

    @property
    def cached_tokens(self) -> int:
        return sum(len(cached.keys) for cached in self._cached.values())

    def start(self, sequence: Sequence) -> list[Move]:
        """Gives a sequence the next row; its `length` then counts the tokens of the cached prefix."""
        assert self.fits(sequence)
        row = self._home(sequence).behind + len(self.prefilling)
        assert not self.prefilling or self.prefilling[-1].row == row - 1
        moves = self._place(sequence, row)
        self.prefilling.append(sequence)
        return moves

    def overtake(self, sequence: Sequence) -> list[Move]:
        """As `start`, but in front of the one that is prefilling, which makes room: its KV moves a row up. The caller
        prefills it whole in the next step."""
        assert self.fits(sequence) and len(self.prefilling) == 1
        row = self._home(sequence).behind
        moves = [*self._make_way(row), *self._place(sequence, row)]
        self.prefilling.insert(0, sequence)
        return moves

    def _make_way(self, row: int) -> list[Move]:
        """Moves the one that is prefilling a row up, if it holds this one."""
        held = next((prefilling for prefilling in self.prefilling if prefilling.row == row), None)
        if held is None:
            return []
        moves = [*self._make_room(row + 1, avoid=(row,)), Move(row, row + 1, held.length)]
        held.row = row + 1
        return moves

    def grow(self, sequence: Sequence) -> list[Move]:
        """Moves a sequence that decodes in a short row to a long one, of which one must be left."""
        (short,), long, target = self._short, self._long, self._long.behind
        assert self.long_rows_left > 0
        moves = [*self._make_way(target), *self._make_room(target), Move(sequence.row, target, sequence.length)]
        moves += self._fill_hole(short, sequence)
        sequence.row = target
        long.decoding.append(sequence)
        return moves

    def _fill_hole(self, group: RowGroup, sequence: Sequence) -> list[Move]:
        """Takes a sequence out of those that decode; the last of them takes its row."""
        last = group.decoding.pop()
        if last is sequence:
            return []
        assert group.decoding[sequence.row - group.first] is sequence
        move = Move(last.row, sequence.row, last.length)
        group.decoding[sequence.row - group.first] = last
        last.row = sequence.row
        return [move]

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
        sequence = self.prefilling[0]
        group = self._group(sequence.row)
        target, moves = group.behind, list[Move]()
        if sequence.row != target:
            moves = [*self._make_room(target, avoid=(sequence.row,)), Move(sequence.row, target, sequence.length)]
            sequence.row = target
        self.prefilling.pop(0)
        group.decoding.append(sequence)
        return moves

    def retire(self, sequence: Sequence, keep: bool = True) -> list[Move]:
        """Frees a sequence's row, whose KV stays cached if `keep`; the last decoded row fills the hole."""
        kept = sequence.keys[: self.room(sequence.row) - 1]
        entry = CachedPrefix(kept, sequence.request.scope, self._tick())
        keep = keep and len(entry.keys) >= LEAST_SHARED
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)
            if keep:
                self._cached[sequence.row] = entry
            return []
        group, moves = self._group(sequence.row), list[Move]()
        if sequence is group.decoding[-1]:
            if keep:
                self._cached[sequence.row] = entry
        elif keep and (refuge := self._refuge(len(entry.keys))) is not None:
            moves.append(Move(sequence.row, refuge, len(entry.keys)))
            self._cached[refuge] = entry
        return moves + self._fill_hole(group, sequence)

    def drop_all(self) -> list[Sequence]:
        """Removes every sequence and cached prefix, when the rows' contents can no longer be trusted."""
        ended = [*self.decoding, *self.prefilling]
        for group in self._groups:
            group.decoding.clear()
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
        for group in self._groups:
            assert [r.row for r in group.decoding] == list(range(group.first, group.behind))
        assert self.used <= self.slots
        held = [r.row for r in (*self.decoding, *self.prefilling)]
        assert all(r.length <= self.room(r.row) for r in (*self.decoding, *self.prefilling))
        assert all(len(cached.keys) < self.room(row) for row, cached in self._cached.items())
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
        refuge = self._refuge(len(cached.keys), (row, *avoid), older_than=cached.used)
        if refuge is None:
            return []
        self._cached[refuge] = cached
        return [Move(row, refuge, len(cached.keys))]

    def _refuge(self, tokens: int, avoid: tuple[int | None, ...] = (), older_than: int | None = None) -> int | None:
        """A row for so many tokens without a sequence: the last empty one of the smallest, else the least recently
        used."""
        taken = {*avoid, *(sequence.row for sequence in (*self.decoding, *self.prefilling))}
        free = list[int]()
        for group in (group for group in self._groups if group.tokens > tokens):
            rows = [row for row in range(group.first, group.end) if row not in taken]
            if empty := [row for row in rows if row not in self._cached]:
                return empty[-1]
            free += rows
        oldest = min(free, key=lambda row: self._cached[row].used, default=None)
        if oldest is None or (older_than is not None and self._cached[oldest].used > older_than):
            return None
        return oldest

    def _home(self, sequence: Sequence) -> RowGroup:
        """The smallest rows for what a sequence must read and the beginning of what it has left to say."""
        return self._home_of(sequence.prompt.length, sequence.request.sampling.max_tokens - len(sequence.answer))

    def _home_of(self, tokens: int, left: int) -> RowGroup:
        return next(
            group for group in self._groups if tokens + min(left, group.tokens // _ROOM_TO_ANSWER) <= group.tokens
        )

    def _group(self, row: int) -> RowGroup:
        return next(group for group in self._groups if row < group.end)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _common(wanted: np.ndarray, keys: np.ndarray) -> int:
    """How many keys two rows share from their beginning."""
    count = min(len(wanted), len(keys))
    different = wanted[:count] != keys[:count]
    return int(different.argmax()) if different.any() else count
