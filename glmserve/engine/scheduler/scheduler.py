"""Decides what the next step reads: a chunk of one prompt, or a few short prompts whole."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from glmserve.engine.request import Request, Sequence
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import Move, SlotTable
from glmserve.engine.scheduler.wait_queue import Ticket


@dataclass(frozen=True)
class Waiting:
    """A request in line, with the place it gives back when it leaves."""

    request: Request
    place: Ticket


@dataclass(frozen=True)
class Chunk:
    """Tokens [start, stop) of a prompt."""

    running: Sequence
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        return self.stop == self.running.request.prompt.length


@dataclass(frozen=True)
class Prefill:
    """What a step reads, in rows that follow one another, after the `moves` that bring KV to be taken over."""

    chunks: list[Chunk]
    moves: list[Move]


class Scheduler:
    """First come, first served; owned by the engine's thread."""

    def __init__(self, table: SlotTable, pace: ChunkBudget, chunk_tokens: int, min_chunk_tokens: int) -> None:
        self.waiting: deque[Waiting] = deque()
        self._table = table
        self._pace = pace
        self._chunk_tokens = chunk_tokens
        self._ridge_tokens = min_chunk_tokens

    @property
    def is_idle(self) -> bool:
        return not self.waiting and self._table.used == 0

    def next_prefill(self, now: float) -> Prefill | None:
        """What this step reads, starting waiting requests when a row is free; None when there is nothing to read."""
        table, moves = self._table, list[Move]()
        beginning = len(table.prefilling) + len(self.waiting)
        if not table.prefilling:
            if not self.waiting or not table.can_start:
                return None
            moves += self._start(now)
        first = table.prefilling[0]
        budget = self._budget(first, beginning)
        stop = min(first.length + budget, first.request.prompt.length)
        chunks = [Chunk(first, first.length, stop)]
        if chunks[0].is_last and first.length == 0 and not first.request.grammar:
            moves += self._join(chunks, now)
        return Prefill(chunks, moves)

    def _budget(self, first: Sequence, beginning: int) -> int:
        """Tokens to read of a prompt. One that fits a chunk is not cut: half-empty decode steps in between would cost
        everybody more than one short wait does."""
        if first.request.prompt.length - first.cached <= self._chunk_tokens:
            return self._chunk_tokens
        return self._pace.chunk_tokens(len(self._table.decoding), beginning, self._chunk_tokens)

    def _join(self, chunks: list[Chunk], now: float) -> list[Move]:
        """Adds the next prompts in line while all of them together still cost about as much as any step does.

        Only whole prompts that share no KV: the attention kernel reads several rows at once only from their beginning.
        """
        moves, tokens = list[Move](), chunks[0].tokens
        while self.waiting and self._table.can_start:
            request = self.waiting[0].request
            tokens += request.prompt.length
            if tokens > self._ridge_tokens or request.grammar:
                break
            if self._table.shared(Sequence(request, now)):
                break
            moves += self._start(now)
            chunks.append(Chunk(self._table.prefilling[-1], 0, request.prompt.length))
        return moves

    def _start(self, now: float) -> list[Move]:
        waiting = self.waiting.popleft()
        waiting.place.leave()
        return self._table.start(Sequence(waiting.request, started=now))
