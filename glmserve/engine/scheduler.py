"""Decides what the next step runs: at most one chunk of one prompt, then one token for every decoded row."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from glmserve.engine.request import Request, Running
from glmserve.engine.slots import SlotTable
from glmserve.errors import Overloaded


@dataclass(frozen=True)
class Chunk:
    """Tokens [start, stop) of a prompt."""

    running: Running
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        return self.stop == self.running.request.prompt.length


class Scheduler:
    """The waiting line, first come first served; owned by the engine's thread."""

    def __init__(self, table: SlotTable, chunk_tokens: int, max_waiting: int) -> None:
        self.table = table
        self.waiting: deque[Request] = deque()
        self._chunk_tokens = chunk_tokens
        self._max_waiting = max_waiting

    def add(self, request: Request) -> None:
        """Puts a request into the line; raises Overloaded when it is full."""
        if len(self.waiting) >= self._max_waiting:
            raise Overloaded("The waiting line is full; try again shortly.")
        self.waiting.append(request)

    def next_chunk(self, now: float) -> Chunk | None:
        """The prompt chunk of this step, starting the next waiting request when a row is free."""
        table = self.table
        if table.can_start and self.waiting:
            table.start(Running(self.waiting.popleft(), row=-1, started=now))
        running = table.prefilling
        if running is None:
            return None
        stop = min(running.length + self._chunk_tokens, running.request.prompt.length)
        return Chunk(running, running.length, stop)

    @property
    def is_idle(self) -> bool:
        return not self.waiting and self.table.used == 0
