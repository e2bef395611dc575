"""Random joins, chunks, decodes and departures never leave a hole in the decoded rows or mix two requests' KV."""

from __future__ import annotations

import numpy as np
from engine_rig import prompt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glmserve.engine.request import Request, Running, Sampling
from glmserve.engine.sampling import sampler_inputs
from glmserve.engine.scheduler import Chunk, Scheduler
from glmserve.engine.session import FakeSession, Step
from glmserve.engine.slots import Move, SlotTable


class SlotMachine(RuleBasedStateMachine):
    """Drives scheduler, slot table and fake session as the engine does, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.session = FakeSession(slots=4, context=64)
        self.table = SlotTable(4)
        self.scheduler = Scheduler(self.table, chunk_tokens=5, max_waiting=6)
        self.fed: dict[Running, list[int]] = {}
        self.next_token = 0

    @precondition(lambda self: len(self.scheduler.waiting) < 6)
    @rule(length=st.integers(1, 17))
    def arrive(self, length: int) -> None:
        tokens = list(range(self.next_token, self.next_token + length))
        self.next_token += length
        self.scheduler.add(Request(prompt(tokens), Sampling(), 5, 1e9, lambda event: None))

    @rule()
    def run_a_chunk(self) -> None:
        chunk = self.scheduler.next_chunk(0.0)
        if chunk:
            running, part = chunk.running, slice(chunk.start, chunk.stop)
            self._run(running.row, running.request.prompt.input_ids[None, part], np.array([chunk.start], np.int32))
            self.fed.setdefault(running, []).extend(running.request.prompt.input_ids[part].tolist())
            running.length = chunk.stop
            if chunk.is_last:
                self._move(self.table.promote())
        assert isinstance(chunk, Chunk | None)

    @precondition(lambda self: self.table.decoding)
    @rule()
    def decode(self) -> None:
        rows = self.table.decoding
        ids = np.array([[self.next_token + i] for i in range(len(rows))])
        self.next_token += len(rows)
        self._run(0, ids, np.array([r.length for r in rows], np.int32))
        for running, token in zip(rows, ids[:, 0], strict=True):
            self.fed[running].append(int(token))
            running.length += 1
        for running in [r for r in rows if r.length >= 60]:
            self._move(self.table.retire(running))

    @precondition(lambda self: self.table.used)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        held = [*self.table.decoding, *([self.table.prefilling] if self.table.prefilling else [])]
        self._move(self.table.retire(data.draw(st.sampled_from(held))))

    @invariant()
    def every_row_holds_its_own_tokens(self) -> None:
        self.table.check()
        for running in [*self.table.decoding, *([self.table.prefilling] if self.table.prefilling else [])]:
            assert self.session.rows[running.row][: running.length] == self.fed.get(running, [])

    def _run(self, row: int, ids: np.ndarray, lengths: np.ndarray) -> None:
        positions = np.zeros((3, *ids.shape), np.int64)
        sampler = sampler_inputs([(Sampling(), 0)] * len(ids), 8)
        self.session.run(Step(row, ids, np.zeros_like(ids), positions, lengths, None, sampler))

    def _move(self, move: Move | None) -> None:
        if move:
            self.session.move(move.source, move.target, move.length)


TestSlots = SlotMachine.TestCase
TestSlots.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)  # 10 000 steps


def test_a_finished_row_is_filled_by_the_last_one() -> None:
    table = SlotTable(3)
    runners = []
    for _ in range(3):
        running = Running(Request(prompt([1]), Sampling(), 1, 1e9, lambda event: None), -1, 0.0)
        table.start(running)
        running.length = 9
        table.promote()
        runners.append(running)
    assert table.retire(runners[0]) == Move(source=2, target=0, length=9)
    assert runners[2].row == 0
    table.check()
