"""One replica in simulated time: the engine's own wait queue, slots, chunk budget and scheduler, without a device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from bench.simulation.step_times import StepTimes
from glmserve.engine.request import Prompt, Request, Sequence
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk, Scheduler, Waiting
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.errors import Overloaded
from glmserve.sampling_parameters import Sampling


@dataclass(frozen=True)
class Machine:
    """How fast a replica is and how much it holds; `image_s` is the time to encode a request's image."""

    times: StepTimes
    slots: int = 16
    image_s: float = 0.0
    max_waiting: int = 64
    max_waiting_tokens: int = 262_144
    chunk_tokens: int = 256
    min_chunk_tokens: int = 8


@dataclass(eq=False)
class Visit:
    """One request from its arrival to its end, in seconds of simulated time; `ending` is done, refused or late."""

    arrived: float
    prompt_tokens: int
    answer_tokens: int
    deadline: float
    first_token_at: float = 0.0
    ended_at: float = 0.0
    ending: str = ""


@dataclass
class Replica:
    """Call `arrive` and `step` in the order of simulated time; `ended` collects visits until someone takes them."""

    machine: Machine
    now: float = 0.0
    is_stepping: bool = False
    tokens: int = 0
    ended: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        machine = self.machine
        self._wait_queue = WaitQueue(machine.max_waiting, machine.max_waiting_tokens, lambda: self.now, machine.slots)
        self._table = SlotTable(machine.slots, machine.slots)
        self._budget = ChunkBudget(machine.min_chunk_tokens)
        self._scheduler = Scheduler(self._table, self._budget, machine.chunk_tokens, machine.min_chunk_tokens)
        self._encoding: deque[tuple[float, Waiting]] = deque()  # with the time at which the image is encoded
        self._encoder_free_at = 0.0
        self._visits: dict[Request, Visit] = {}

    def arrive(self, visit: Visit, now: float) -> None:
        """Refused where the wait queue has no room."""
        self.now = max(self.now, now)
        try:
            place = self._wait_queue.enter(visit.prompt_tokens, visit.answer_tokens, visit.deadline - now)
        except Overloaded:
            self._end(visit, "refused", now)
            return
        request = _request(visit)
        self._visits[request] = visit
        self._encoder_free_at = max(self._encoder_free_at, now) + self.machine.image_s
        self._encoding.append((self._encoder_free_at, Waiting(request, place)))

    def next_step_at(self) -> float | None:
        """When there is something to do; None without work."""
        if not self._scheduler.is_idle:
            return self.now
        return max(self.now, self._encoding[0][0]) if self._encoding else None

    def step(self, now: float) -> None:
        """One step as the engine takes it; afterwards `now` is the moment it ends."""
        self.now = now
        while self._encoding and self._encoding[0][0] <= now:
            self._scheduler.waiting.append(self._encoding.popleft()[1])
        self._drop_the_late()
        prefill = self._scheduler.next_prefill(now)
        rows, chunks = list(self._table.decoding), prefill.chunks if prefill else []
        if rows or chunks:
            self._run(rows, chunks)

    def _run(self, rows: list[Sequence], chunks: list[Chunk]) -> None:
        tokens = sum(chunk.tokens for chunk in chunks)
        seconds = self.machine.times.step(len(rows), tokens)
        self.now += seconds
        self._budget.observe_step(len(rows), tokens, seconds)
        for running in rows:
            running.length += 1
        if rows:
            self._wait_queue.observe_pace(seconds)
        for chunk in chunks:
            chunk.sequence.length = chunk.stop
        done = [chunk.sequence for chunk in chunks if chunk.is_last]
        for running in done:
            self._visits[running.request].first_token_at = self.now
            self._table.promote()
        for running in (*rows, *done):
            running.answer.append(0)
            self.tokens += 1
            if len(running.answer) >= running.request.sampling.max_tokens:
                self._retire(running, "done")

    def _drop_the_late(self) -> None:
        for entry in [entry for entry in self._scheduler.waiting if self.now >= entry.request.deadline]:
            self._scheduler.waiting.remove(entry)
            entry.ticket.leave()
            self._end(self._visits.pop(entry.request), "late", self.now)
        for running in (*self._table.decoding, *self._table.prefilling):
            if self.now >= running.request.deadline:
                self._retire(running, "late")

    def _retire(self, running: Sequence, ending: str) -> None:
        self._table.retire(running, keep=False)
        visit = self._visits.pop(running.request)
        running.give_back()
        self._wait_queue.request_ended()
        if ending == "done":
            self._wait_queue.observe_answer(
                visit.answer_tokens, len(running.answer), visit.first_token_at - running.started
            )
        self._end(visit, ending, self.now)

    def _end(self, visit: Visit, ending: str, now: float) -> None:
        visit.ending, visit.ended_at = ending, now
        self.ended.append(visit)


def _request(visit: Visit) -> Request:
    """A request whose prompt is like no other: every key is its own."""
    keys = np.broadcast_to(np.int64(id(visit)), visit.prompt_tokens)
    prompt = Prompt(keys, np.empty((3, 0), np.int64), 0, (), np.empty(0, np.int64), keys)
    sampling = Sampling(max_tokens=visit.answer_tokens)
    return Request(prompt, sampling, visit.deadline, emit=lambda _event: None, arrived=visit.arrived)
