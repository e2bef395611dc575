"""Random joins, chunks, decodes and departures never leave a hole in the decoded rows or mix two requests' KV."""

from __future__ import annotations

import numpy as np
import pytest
from engine_rig import prompt
from fake_decoder import FakeSession
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glmserve.engine.request import Request, Sequence
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import LEAST_SHARED, Move, SlotTable
from glmserve.engine.scheduler.scheduler import Chunk, Scheduler, Waiting
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.speculative.proposer import Draft
from glmserve.engine.step_builder import step_of
from glmserve.sampling_parameters import Sampling

SLOTS, ROWS, CONTEXT = 4, 6, 96


class SlotMachine(RuleBasedStateMachine):
    """Drives scheduler, slot table and fake session as the engine does, in any order.

    Prompts often begin alike, so that KV is taken over; decode steps are padded, so that strays are written.
    """

    rows, short_rows, short_tokens = ROWS, 0, 0

    def __init__(self) -> None:
        super().__init__()
        short = {"short_rows": self.short_rows, "short_tokens": self.short_tokens}
        self.session = FakeSession(rows=self.rows, context=CONTEXT, vocabulary=10**9, bucket=SLOTS, **short)
        self.table = SlotTable(SLOTS, self.rows, **short)
        chunk_budget = ChunkBudget(min_chunk_tokens=24)
        self.scheduler = Scheduler(self.table, chunk_budget, chunk_tokens=24, min_chunk_tokens=24)
        self.wait_queue = WaitQueue(6, 10**6)

    @precondition(lambda self: self.wait_queue.requests < 6)
    @rule(family=st.integers(1, 3), shared=st.integers(0, 40), own=st.integers(1, 20), scope=st.integers(0, 1))
    def arrive(self, family: int, shared: int, own: int, scope: int) -> None:
        tokens = [1000 * family + i for i in range(shared)] + [own * 7 + i for i in range(own)]
        request = Request(prompt(tokens), Sampling(max_tokens=CONTEXT), 1e9, lambda event: None, scope=scope)
        self.scheduler.waiting.append(Waiting(request, self.wait_queue.enter(len(tokens))))

    @rule(reads=st.booleans(), decodes=st.booleans(), guessed=st.integers(0, 3), right=st.integers(0, 3))
    def step(self, reads: bool, decodes: bool, guessed: int, right: int) -> None:
        for sequence in self.table.outgrown:
            loser = self.scheduler.gives_way(sequence)
            if loser is not None:
                self._move(self.scheduler.preempt(loser))
            if loser is not sequence:
                self._move(self.table.grow(sequence))
        prefill = self.scheduler.next_prefill(0.0) if reads else None
        chunks = prefill.chunks if prefill else []
        if prefill:
            self._move(prefill.moves)
        *apart, rows = self.table.runs(bool(chunks)) if decodes else [[]]
        for alone in apart:
            self._run(alone, [], 0, 0)
        self._run(rows, chunks, guessed, right)

    def _run(self, rows: list[Sequence], chunks: list[Chunk], guessed: int, right: int) -> None:
        if not rows and not chunks:
            return
        is_of_one_size = not rows or self.table.room(rows[0].row) == self.table.room(rows[-1].row)
        draft = None if chunks or not is_of_one_size else self._draft(rows, guessed, right)
        tokens = self.session.run(step_of(rows, chunks, self.table, self.session, draft)).tokens
        for sequence in rows:
            sequence.length += 1
        ahead = tokens[len(rows) :].tolist()[:right] if draft else []
        if draft:
            draft.sequence.length += len(ahead)
        for chunk in chunks:
            chunk.sequence.length = chunk.stop
        done = [(len(rows) + at, chunk.sequence) for at, chunk in enumerate(chunks) if chunk.begins_answer]
        for chunk in chunks:
            if chunk.is_last:
                self._move(self.table.promote())
        for at, sequence in (*enumerate(rows), *done):
            sequence.answer.append(int(tokens[at]))
        if draft:
            draft.sequence.answer += ahead
        for sequence in [r for r in rows if r.length >= CONTEXT]:
            self._move(self.table.retire(sequence))

    @precondition(lambda self: self.table.used)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        held = [*self.table.decoding, *self.table.prefilling]
        self._move(self.scheduler.preempt(data.draw(st.sampled_from(held))))

    @precondition(lambda self: self.table.used)
    @rule(data=st.data(), keep=st.booleans())
    def leave(self, data: st.DataObject, keep: bool) -> None:
        held = [*self.table.decoding, *self.table.prefilling]
        self._move(self.table.retire(data.draw(st.sampled_from(held)), keep))

    @invariant()
    def every_row_holds_its_own_tokens(self) -> None:
        self.table.check()
        for sequence in [*self.table.decoding, *self.table.prefilling]:
            fed = (sequence.request.prompt.input_ids.tolist() + sequence.answer)[: sequence.length]
            assert self.session.kv[sequence.row][: sequence.length] == fed

    @invariant()
    def warm_rows_hold_what_they_promise(self) -> None:
        for row, warm in self.table._cached.items():
            promised = warm.keys[: CONTEXT - 1].tolist()  # the last place of a full context is where strays go
            assert self.session.kv[row][: len(promised)] == promised

    def _move(self, moves: list[Move]) -> None:
        for move in moves:
            self.session.move(move.source, move.target, move.length)

    def _draft(self, rows: list[Sequence], guessed: int, right: int) -> Draft | None:
        """Guesses for one of the rows, of which the first are what the fake session draws."""
        sequence = rows[guessed % len(rows)]
        guessed = min(guessed, min(CONTEXT, self.table.room(sequence.row)) - sequence.length - 2)
        tokens = [sequence.answer[-1] + 1 + at if at < right else 0 for at in range(guessed)]
        return Draft(sequence, tokens) if tokens else None


class TwoSizes(SlotMachine):
    """The same with short rows and few long ones, so that sequences grow out of theirs and take others'."""

    rows, short_rows, short_tokens = 7, 5, 40


# Hypothesis makes a failing run smaller for five minutes, which must not end as a timeout that hides the failure.
SHRINKS = pytest.mark.timeout(600)
TestSlots = SHRINKS(pytest.mark.slow(SlotMachine.TestCase))
TestSlots.settings = settings(stateful_step_count=50)  # CI takes over 10 000 steps
TestTwoSizes = SHRINKS(pytest.mark.slow(TwoSizes.TestCase))
TestTwoSizes.settings = settings(stateful_step_count=50)


def _decoding(table: SlotTable, *prompts: list[int]) -> list[Sequence]:
    runners = []
    for tokens in prompts:
        sequence = Sequence(Request(prompt(tokens), Sampling(max_tokens=1), 1e9, lambda event: None), 0.0)
        table.start(sequence)
        sequence.length = len(tokens)
        table.promote()
        runners.append(sequence)
    return runners


def test_a_finished_row_is_filled_by_the_last_one_and_stays_warm_elsewhere() -> None:
    table = SlotTable(3, 4)
    runners = _decoding(table, list(range(20)), list(range(100, 109)), list(range(200, 209)))
    assert table.retire(runners[0]) == [Move(0, 3, 20), Move(2, 0, 9)]
    assert runners[2].row == 0
    table.check()


def test_a_longer_prompt_takes_over_what_an_ended_one_left() -> None:
    table = SlotTable(2, 3)
    first = _decoding(table, list(range(30)))[0]
    assert table.retire(first) == []
    again = Sequence(Request(prompt(list(range(40))), Sampling(max_tokens=1), 1e9, lambda event: None), 0.0)
    assert table.start(again) == []
    assert (again.row, again.length, again.cached) == (0, 30, 30)


def test_another_scope_takes_nothing_over() -> None:
    table = SlotTable(2, 3)
    table.retire(_decoding(table, list(range(30)))[0])
    stranger = Sequence(Request(prompt(list(range(40))), Sampling(max_tokens=1), 1e9, lambda event: None, scope=5), 0.0)
    table.start(stranger)
    assert stranger.cached == 0


def test_what_runs_lends_its_beginning_too() -> None:
    table = SlotTable(2, 2)
    _decoding(table, list(range(30)))
    second = Sequence(
        Request(prompt([*range(LEAST_SHARED + 4), 7]), Sampling(max_tokens=1), 1e9, lambda event: None), 0.0
    )
    assert table.start(second) == [Move(0, 1, LEAST_SHARED + 4)]


def test_a_prompt_that_was_read_before_still_reads_its_last_token() -> None:
    table = SlotTable(2, 3)
    table.retire(_decoding(table, list(range(30)))[0])
    same = Sequence(Request(prompt(list(range(30))), Sampling(max_tokens=1), 1e9, lambda event: None), 0.0)
    table.start(same)
    assert same.length == 29
    assert np.array_equal(same.keys, np.arange(29))


def test_the_last_place_of_a_short_row_is_lent_to_nobody() -> None:
    """A padded step writes there, once nobody decodes in the row any more."""
    table = SlotTable(2, 5, short_rows=3, short_tokens=40)
    outgrown, beside = _decoding(table, list(range(30)), list(range(100, 120)))
    assert (outgrown.row, beside.row) == (0, 1)
    outgrown.length, outgrown.answer = 40, list(range(30, 41))
    table.retire(outgrown)
    table.check()
    longer = Sequence(Request(prompt(list(range(60))), Sampling(max_tokens=1), 1e9, lambda event: None), 0.0)
    table.start(longer)
    assert longer.row >= 3 and longer.cached == 39
