"""Decides what the next step prefills: a chunk of one prompt, or a few short prompts whole."""

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
    """Tokens [start, stop) of a prompt."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        return self.stop == self.sequence.request.prompt.length


@dataclass(frozen=True)
class Prefill:
    """The chunks that a step prefills, in adjacent rows, after the `moves` that copy cached KV into them."""

    chunks: list[Chunk]
    moves: list[Move]


class Scheduler:
    """First come, first served, but that a prompt which fits one chunk may pass a longer one that is being read,
    between two chunks of that. Owned by the engine's thread."""

    def __init__(self, table: SlotTable, chunk_budget: ChunkBudget, chunk_tokens: int, min_chunk_tokens: int) -> None:
        self.waiting: deque[Waiting] = deque()
        self._table = table
        self._chunk_budget = chunk_budget
        self._chunk_tokens = chunk_tokens
        self._min_chunk_tokens = min_chunk_tokens
        self._was_passed = False  # then the long prompt's chunk comes next, whoever waits

    @property
    def is_idle(self) -> bool:
        return not self.waiting and self._table.used == 0

    def next_prefill(self, now: float) -> Prefill | None:
        """The next step's prefill, None for none; starts waiting requests when a row is free."""
        table, moves = self._table, list[Move]()
        beginning = len(table.prefilling) + len(self.waiting)
        if not table.prefilling:
            if not self.waiting or not table.can_start:
                return None
            moves += self._start(now)
        elif passing := self._passing():
            return self._pass(passing, now)
        self._was_passed = False
        first = table.prefilling[0]
        budget = self._budget(first, beginning)
        stop = min(first.length + budget, first.request.prompt.length)
        chunks = [Chunk(first, first.length, stop)]
        if chunks[0].is_last and first.length == 0 and not first.request.grammar:
            moves += self._join(chunks, now)
        return Prefill(chunks, moves)

    def _passing(self) -> Waiting | None:
        """The first waiting request that is read in one step while a prompt is being read which takes several more."""
        most = self._chunk_budget.most_tokens(self._chunk_tokens)
        reading = self._table.prefilling[0]
        is_long = reading.request.prompt.length - reading.length > most
        if self._was_passed or not is_long or not self._table.can_start:
            return None
        return next((waiting for waiting in self.waiting if waiting.request.prompt.length <= most), None)

    def _pass(self, waiting: Waiting, now: float) -> Prefill:
        """Reads a waiting prompt whole, before the rest of the one that is being read."""
        self.waiting.remove(waiting)
        self._was_passed = True
        waiting.ticket.start()
        sequence = Sequence(waiting.request, started=now, give_back=waiting.ticket.leave)
        moves = self._table.overtake(sequence)
        return Prefill([Chunk(sequence, sequence.length, waiting.request.prompt.length)], moves)

    def _budget(self, first: Sequence, beginning: int) -> int:
        """Prompt tokens of the next chunk. A prompt that fits one chunk is not cut: the half-empty decode steps between
        its parts would cost every sequence more than one short wait."""
        most = self._chunk_budget.most_tokens(self._chunk_tokens)
        if first.request.prompt.length - first.cached <= most:
            return most
        return self._chunk_budget.chunk_tokens(len(self._table.decoding), beginning, self._chunk_tokens)

    def _join(self, chunks: list[Chunk], now: float) -> list[Move]:
        """Adds the next waiting prompts while together they cost no more than one decode step.

        Only whole prompts without a cached prefix: the attention kernel prefills several rows only from their start.
        """
        moves, tokens = list[Move](), chunks[0].tokens
        while self.waiting and self._table.can_start:
            request = self.waiting[0].request
            tokens += request.prompt.length
            if tokens > self._min_chunk_tokens or request.grammar:
                break
            if self._table.shared(Sequence(request, now)):
                break
            moves += self._start(now)
            chunks.append(Chunk(self._table.prefilling[-1], 0, request.prompt.length))
        return moves

    def _start(self, now: float) -> list[Move]:
        waiting = self.waiting.popleft()
        waiting.ticket.start()
        return self._table.start(Sequence(waiting.request, started=now, give_back=waiting.ticket.leave))
