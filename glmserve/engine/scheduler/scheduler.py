"""Decides what the next step prefills: a chunk of one prompt, or a few short prompts whole; preempted ones first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from glmserve.engine.request import Request, Sequence
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import Move, SlotTable
from glmserve.engine.scheduler.wait_queue import Ticket


@dataclass(frozen=True)
class Waiting:
    """A waiting request and its ticket for the wait queue."""

    request: Request
    ticket: Ticket


@dataclass(frozen=True)
class Chunk:
    """Tokens [start, stop) of what a sequence must read: its prompt, and after a preemption its answer so far."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        return self.stop == self.sequence.prompt.length

    @property
    def begins_answer(self) -> bool:
        """Whether the token that is sampled after it is the answer's first; after a preemption, tokens of the answer
        are there already."""
        return self.is_last and not self.sequence.answer


@dataclass(frozen=True)
class Prefill:
    """The chunks that a step prefills, in adjacent rows, after the `moves` that copy cached KV into them."""

    chunks: list[Chunk]
    moves: list[Move]


class Scheduler:
    """First come, first served, with two exceptions: a prompt that fits one chunk may pass a longer one that is being
    read, between two chunks of that; and who waits for a long row is passed by those that need a short one. What was
    preempted comes before all that never ran. Owned by the engine's thread."""

    def __init__(self, table: SlotTable, chunk_budget: ChunkBudget, chunk_tokens: int, min_chunk_tokens: int) -> None:
        self.waiting: deque[Waiting] = deque()
        self.preempted: list[Sequence] = []  # the oldest first
        self._table = table
        self._chunk_budget = chunk_budget
        self._chunk_tokens = chunk_tokens
        self._min_chunk_tokens = min_chunk_tokens
        self._was_passed = False  # then the long prompt's chunk comes next, whoever waits

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.preempted and self._table.used == 0

    def gives_way(self, sequence: Sequence) -> Sequence | None:
        """Who loses its row so that a sequence can grow: the youngest of those in long rows and itself. None where a
        long row is left, which nobody older waits for."""
        waiting = (*self.preempted, *(Sequence(waiting.request, 0.0) for waiting in self.waiting))
        older = sum(_arrival(other) < _arrival(sequence) and self._table.needs_long(other) for other in waiting)
        if self._table.long_rows_left > older:
            return None
        return max([*self._table.in_long_rows, sequence], key=_arrival)

    def preempt(self, sequence: Sequence) -> list[Move]:
        """Takes a sequence's row away, whose KV stays cached where there is room; it starts again as soon as it can."""
        moves = self._table.retire(sequence)
        sequence.preempt()
        self.preempted.append(sequence)
        self.preempted.sort(key=_arrival)
        return moves

    def retire(self, sequence: Sequence, keep: bool = True) -> list[Move]:
        """Forgets a sequence, running or preempted; see `SlotTable.retire`."""
        if sequence in self.preempted:
            self.preempted.remove(sequence)
            return []
        return self._table.retire(sequence, keep)

    def next_prefill(self, now: float) -> Prefill | None:
        """The next step's prefill, None for none; starts waiting requests when a row is free."""
        table, moves = self._table, list[Move]()
        beginning = len(table.prefilling) + len(self.waiting) + len(self.preempted)
        if not table.prefilling:
            starting = self._next(now)
            if starting is None:
                return None
            moves += table.start(starting)
        elif passing := self._passing(now):
            self._was_passed = True
            moves += table.overtake(passing)
            return Prefill([Chunk(passing, passing.length, passing.prompt.length)], moves)
        self._was_passed = False
        first = table.prefilling[0]
        budget = self._budget(first, beginning)
        stop = min(first.length + budget, first.prompt.length)
        chunks = [Chunk(first, first.length, stop)]
        if chunks[0].is_last and first.length == 0 and not first.request.grammar:
            moves += self._join(chunks, now)
        return Prefill(chunks, moves)

    def _next(self, now: float, most: int | None = None) -> Sequence | None:
        """Takes who starts next, of those with at most so many tokens to read; None where none can start."""
        if not self._table.can_start:
            return None
        for sequence in self.preempted:
            if (most is None or sequence.prompt.length <= most) and self._table.fits(sequence):
                self.preempted.remove(sequence)
                return sequence
        for waiting in self.waiting:
            ticket = waiting.ticket
            sequence = Sequence(waiting.request, started=now, give_back=ticket.leave, outgrow=ticket.outgrow)
            if (most is None or sequence.prompt.length <= most) and self._table.fits(sequence):
                self.waiting.remove(waiting)
                waiting.ticket.start()
                return sequence
        return None

    def _passing(self, now: float) -> Sequence | None:
        """Takes the next one that is read in one step, while a prompt is being read which takes several more."""
        most = self._chunk_budget.most_tokens(self._chunk_tokens)
        reading = self._table.prefilling[0]
        is_long = reading.prompt.length - reading.length > most
        return self._next(now, most) if is_long and not self._was_passed else None

    def _budget(self, first: Sequence, beginning: int) -> int:
        """Prompt tokens of the next chunk. A prompt that fits one chunk is not cut: the half-empty decode steps between
        its parts would cost every sequence more than one short wait."""
        most = self._chunk_budget.most_tokens(self._chunk_tokens)
        if first.prompt.length - first.cached <= most:
            return most
        return self._chunk_budget.chunk_tokens(len(self._table.decoding), beginning, self._chunk_tokens)

    def _join(self, chunks: list[Chunk], now: float) -> list[Move]:
        """Adds the next waiting prompts while together they cost no more than one decode step.

        Only whole prompts without a cached prefix, in rows of one size: the attention kernel prefills several rows only
        from their start.
        """
        moves, tokens = list[Move](), chunks[0].tokens
        is_long = self._table.needs_long(chunks[0].sequence)
        while self.waiting and not self.preempted:
            request = self.waiting[0].request
            next_one = Sequence(request, now)
            tokens += request.prompt.length
            if tokens > self._min_chunk_tokens or request.grammar or self._table.shared(next_one):
                break
            if not self._table.fits(next_one) or self._table.needs_long(next_one) != is_long:
                break
            joining = self._next(now)
            assert joining is not None and joining.request is request
            moves += self._table.start(joining)
            chunks.append(Chunk(joining, 0, request.prompt.length))
        return moves


def _arrival(sequence: Sequence) -> float:
    return sequence.request.arrived
