"""Short and long sequences share the memory: they grow out of short rows, and the youngest gives way to older ones."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from engine_rig import GatedSession, Receiver, prompt, request, running

from glmserve.build.manifest import decoder_in
from glmserve.contract import Finish
from glmserve.engine.memory_plan import kv_tokens
from glmserve.engine.metrics import KV_CAPACITY, PREEMPTIONS, PREFILL_CHUNKS
from glmserve.engine.preprocessor import prompt_arrays
from glmserve.engine.request import Event, Request, Sequence
from glmserve.engine.runtime.kv_cache import KvShape
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import Move, SlotTable
from glmserve.engine.scheduler.scheduler import Scheduler, Waiting
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.server import EngineServer
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadSettings, Overloaded
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import Sampling

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SHORT = 32
GRID = Grid(8, 12)


def of_two_sizes(long_rows: int, slots: int = 8, context: int = 200, **more: int) -> GatedSession:
    return GatedSession(rows=slots + long_rows, context=context, short_rows=slots, short_tokens=SHORT, **more)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("long_rows", [1, 2, 5])
def test_every_answer_is_whole_however_few_long_rows_there_are(seed: int, long_rows: int) -> None:
    chance, session = random.Random(seed), of_two_sizes(long_rows, bucket=4)
    with running(session, slots=8, chunk_tokens=16, draft_tokens=4) as (engine, _):
        session.gate.clear()
        receivers = [(Receiver(), chance.choice([1, 5, 30, 70]), chance.choice([3, 20, 60])) for _ in range(16)]
        for at, (receiver, length, wanted) in enumerate(receivers):
            engine.submit(request([1000 * at % 997 + i for i in range(length)], receiver, max_tokens=wanted))
        session.gate.set()
        for at, (receiver, length, wanted) in enumerate(receivers):
            first = 1000 * at % 997 + length
            expected = [(first + i) % 1000 for i in range(wanted)]
            assert receiver.finish in (Finish.LENGTH, Finish.STOP)
            assert receiver.tokens == expected[: expected.index(999) if 999 in expected else None]
        assert engine.meter.totals[KV_CAPACITY] == 8 * SHORT + long_rows * 200
        if long_rows == 1:
            assert engine.meter.totals[PREEMPTIONS] > 0


def test_short_requests_run_beside_one_that_fills_the_context() -> None:
    """The long prompt and the short answers share steps: the long one alone has a long row."""
    session = of_two_sizes(1)
    with running(session, slots=8) as (engine, _):
        session.gate.clear()
        long, shorts = Receiver(), [Receiver() for _ in range(7)]
        engine.submit(request(list(range(100)), long, max_tokens=90))
        for at, receiver in enumerate(shorts):
            engine.submit(request([500 + 20 * at], receiver, max_tokens=20))
        session.gate.set()
        assert long.finish == Finish.LENGTH and long.tokens == list(range(100, 190))
        for at, receiver in enumerate(shorts):
            assert receiver.finish == Finish.LENGTH and receiver.tokens == [501 + 20 * at + i for i in range(20)]
        assert engine.meter.totals[PREEMPTIONS] == 0
        assert any(step.decoded == 7 and step.chunk_new.tolist() == [1] for step in session.steps)


def test_who_waits_for_a_long_row_is_passed_by_those_that_need_a_short_one() -> None:
    session = of_two_sizes(1)
    with running(session, slots=8) as (engine, _):
        session.gate.clear()
        first, second, short = Receiver(), Receiver(), Receiver()
        engine.submit(request(list(range(60)), first, max_tokens=100))
        engine.submit(request(list(range(200, 260)), second, max_tokens=10))
        engine.submit(request([500], short, max_tokens=5))
        session.gate.set()
        assert first.finish == second.finish == short.finish == Finish.LENGTH
        order = [step.input_ids[-1] for step in session.steps if not step.is_decode]
        assert order.index(500) < order.index(259) and engine.meter.totals[PREFILL_CHUNKS] == 3


class Pausing(Receiver):
    """Closes the gate after so many tokens."""

    def __init__(self, session: GatedSession, after: int) -> None:
        super().__init__()
        self._session, self._after, self.has_paused = session, after, threading.Event()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if len(self.tokens) == self._after:
            self._session.gate.clear()
            self.has_paused.set()


@pytest.mark.parametrize(("length", "after"), [(60, 1), (5, 40)], ids=["from the start", "once it has grown"])
def test_a_long_row_that_is_taken_is_foreseen_by_who_needs_another(length: int, after: int) -> None:
    session = of_two_sizes(1)
    with running(session, slots=8) as (engine, _):
        receiver = Pausing(session, after)
        engine.submit(request(list(range(length)), receiver, max_tokens=90))
        assert receiver.has_paused.wait(5)
        engine.wait_queue.observe_answer(90, 90, 0.0)
        for _ in range(200):
            engine.wait_queue.observe_pace(1.0)
        engine.enter(5, 90, 10.0).leave()  # a short row is free
        with pytest.raises(Overloaded):
            engine.enter(60, 90, 10.0)
        session.gate.set()
        assert receiver.finish == Finish.LENGTH
        engine.enter(60, 90, 10.0).leave()


def test_the_oldest_goes_on_and_the_youngest_gives_way() -> None:
    """Four answers outgrow their rows at the same time and there is one long row: they end in the order of arrival."""
    ended: list[int] = []
    session = of_two_sizes(1)

    class Ending(Receiver):
        number = 0

        def __call__(self, event) -> None:  # type: ignore[no-untyped-def]
            if event.is_last:
                ended.append(self.number)
            super().__call__(event)

    with running(session, slots=8) as (engine, _):
        session.gate.clear()
        receivers = [Ending() for _ in range(4)]
        for at, receiver in enumerate(receivers):
            receiver.number = at
            engine.submit(request([200 * at], receiver, max_tokens=60))
        session.gate.set()
        assert all(receiver.finish == Finish.LENGTH for receiver in receivers)
    assert ended == [0, 1, 2, 3]
    assert engine.meter.totals[PREEMPTIONS] == 3, "each of the three younger ones lost its row once"


def _sequence(length: int, arrived: float, max_tokens: int = 20) -> Sequence:
    tokens = prompt([int(arrived * 1000) + i for i in range(length)])
    return Sequence(Request(tokens, Sampling(max_tokens=max_tokens), 1e9, lambda event: None, arrived=arrived), 0.0)


def _decoding(table: SlotTable, *sequences: Sequence) -> None:
    for sequence in sequences:
        table.start(sequence)
        sequence.length = sequence.prompt.length
        table.promote()
        table.check()


def test_a_long_row_that_an_older_request_waits_for_is_left_to_it() -> None:
    table = SlotTable(4, 5, short_rows=4, short_tokens=SHORT)
    scheduler = Scheduler(table, ChunkBudget(8), 64, 8)
    growing = _sequence(SHORT, arrived=5.0, max_tokens=0)
    _decoding(table, growing)
    assert table.outgrown == [growing] and scheduler.gives_way(growing) is None
    wait_queue, older, younger = WaitQueue(9, 999), _sequence(90, arrived=4.0), _sequence(90, arrived=6.0)
    scheduler.waiting.append(Waiting(younger.request, wait_queue.enter(90)))
    assert scheduler.gives_way(growing) is None
    scheduler.waiting.append(Waiting(older.request, wait_queue.enter(90)))
    assert scheduler.gives_way(growing) is growing


def test_one_that_grows_leaves_no_hole_and_pushes_the_prompt_that_is_read() -> None:
    table = SlotTable(4, 7, short_rows=4, short_tokens=SHORT)
    first, second = _sequence(20, 1.0), _sequence(20, 2.0)
    _decoding(table, first, second)
    reading = _sequence(90, 3.0)
    assert table.start(reading) == [] and reading.row == 4
    reading.length, first.length = 50, SHORT
    assert table.grow(first) == [Move(4, 5, 50), Move(0, 4, SHORT), Move(1, 0, 20)]
    assert (first.row, second.row, reading.row) == (4, 0, 5)
    table.check()
    assert table.runs(reads=True) == [[first], [second]] and table.runs(reads=False) == [[second, first]]


def test_a_prefix_in_a_long_row_serves_a_short_prompt_and_the_other_way_round() -> None:
    table = SlotTable(2, 4, short_rows=2, short_tokens=SHORT)
    long, short = _sequence(60, 1.0), _sequence(25, 1.0)
    _decoding(table, long)
    assert table.start(short) == [Move(2, 0, 24)]
    short.length = 25
    table.promote()
    table.retire(long, keep=False)
    longer = _sequence(60, 1.0)
    assert table.start(longer) == [Move(0, 2, 25)]


def test_a_long_prefix_is_never_kept_in_a_short_row() -> None:
    table = SlotTable(3, 5, short_rows=3, short_tokens=SHORT)
    first, second = _sequence(60, 1.0), _sequence(70, 2.0)
    _decoding(table, first, second)
    table.retire(first)  # the other one takes its row, and no long row is left
    table.check()
    assert table.cached_tokens == 0
    table.retire(second)
    assert table.cached_tokens == 70


@pytest.mark.slow
@pytest.mark.parametrize("draft_tokens", [0, 4])
@pytest.mark.parametrize("long_rows", [1, 3])
def test_the_real_decoder_answers_the_same_in_rows_of_two_sizes(
    demo_build: Path, long_rows: int, draft_tokens: int
) -> None:
    """Greedy and seeded, with rows that hold what is no number, so that a read of unwritten KV would show, and with
    decode steps that are padded as on a GPU."""
    checkpoint, chance = Checkpoint.read(DEMO), np.random.default_rng(5)
    prompts = [prompt(chance.integers(300, checkpoint.text.vocabulary, length).tolist()) for length in (5, 40, 90)]
    features = chance.standard_normal((GRID.patches // 4, checkpoint.text.hidden)).astype(np.float32)
    shown = np.array([301, 302, *[checkpoint.image_token_id] * len(features), 303])
    prompts.append(prompt_arrays(checkpoint, shown, [GRID], [features], [b"1" * 32]))
    assert prompts[-1].delta != 0
    samplings = [Sampling(ignore_eos=True), Sampling(ignore_eos=True, temperature=1.0, seed=3)]
    answers, preempted = [], 0.0
    for rows, short_rows in ((5, 0), (5 + long_rows, 5)):
        decoder = OrtDecoder(
            decoder_in(demo_build),
            checkpoint,
            rows,
            256,
            buckets=(1, 2, 4) if short_rows else (),
            short_rows=short_rows,
            short_tokens=48 if short_rows else 0,
        )
        decoder.poison()
        with running(decoder, slots=4, chunk_tokens=32, draft_tokens=draft_tokens) as (engine, _):  # type: ignore[arg-type]
            receivers = [Receiver() for _ in range(8)]
            for at, receiver in enumerate(receivers):
                asked = request([1], receiver, max_tokens=60, sampling=samplings[at % 2])
                engine.submit(replace(asked, prompt=prompts[at // 2]))
            assert all(receiver.finish == Finish.LENGTH for receiver in receivers)
            answers.append([receiver.tokens for receiver in receivers])
            preempted = engine.meter.totals[PREEMPTIONS]
    assert answers[0] == answers[1]
    assert preempted > 0 or long_rows > 1


def test_the_settings_say_how_many_tokens_there_are() -> None:
    text = Checkpoint.read(DEMO).text
    fixed = EngineSettings(slots=4, warm_rows=2, context_tokens=512)
    assert (fixed.rows, fixed.short_rows, kv_tokens(fixed, text)) == (6, 0, 6 * 512)
    shared = EngineSettings(slots=20, warm_rows=2, context_tokens=512, short_tokens=64, long_rows=3)
    assert (shared.rows, shared.short_rows, kv_tokens(shared, text)) == (25, 22, 22 * 64 + 3 * 512)
    assert EngineSettings(short_tokens=8192).short_rows == 0  # no shorter than the context


def test_a_row_that_is_too_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_ENGINE_SHORT_TOKENS", "7")
    with pytest.raises(BadSettings, match=r"GLM_ENGINE_SHORT_TOKENS.*at least 16"):
        EngineSettings.read()


@pytest.mark.build
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [4096, 5000], ids=["as long as the context", "longer"])
def test_rows_that_are_no_shorter_than_the_checkpoints_context_are_not_made_and_it_is_said(
    demo_build: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tokens: int
) -> None:
    context = Checkpoint.read(DEMO).text.max_positions
    assert context <= tokens < EngineSettings().context_tokens
    monkeypatch.setenv("GLM_ENGINE_SHORT_TOKENS", str(tokens))
    monkeypatch.setenv("GLM_ENGINE_SLOTS", "2")
    monkeypatch.setenv("GLM_ENGINE_WARM_ROWS", "0")
    server = EngineServer.open(decoder_in(demo_build).parent, lambda _: np.zeros(0), lambda _metric, _amount: None)
    server.close()
    assert server._engine.meter.totals[KV_CAPACITY] == 2 * context
    assert (
        f"GLM_ENGINE_SHORT_TOKENS={tokens} is ignored: a row of the whole context has {context} tokens" in caplog.text
    )


def test_sizes_of_rows_lie_in_memory_one_after_the_other() -> None:
    shape = KvShape(5, 2, context=100, head_dim=4, layers=1, element_type=1, short_rows=3, short_tokens=10)
    begins = [shape.begin(row) for row in range(6)]
    token = 2 * 4 * 4
    assert [after - before for before, after in pairwise(begins)] == [10 * token] * 3 + [100 * token] * 2
    assert [shape.room(row) for row in range(5)] == [10, 10, 10, 100, 100]
