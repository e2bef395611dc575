"""What the start measures: how long a step takes, and from it how long a chunk of a prompt may be."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from engine_rig import Receiver, request, running
from eventually import eventually
from fake_decoder import FakeSession
from preparing import CHECKPOINT, DEMO

from glmserve.engine.metrics import PROMPT_TOKEN_S, STEP_S
from glmserve.engine.runtime.decoder import Pace, Sampled, Step
from glmserve.engine.runtime.pace import PROMPT_TOKENS, measured_pace
from glmserve.engine.scheduler.chunk_budget import LONGEST_S, ChunkBudget
from glmserve.engine.server import EngineServer
from glmserve.engine.settings import EngineSettings
from glmserve.engine.vision.stop import Stop


class SlowSession(FakeSession):
    """Takes so long for a step and for each prompt token, and measures that as the real one does."""

    def __init__(self, step_s: float, token_s: float, **shape: Any) -> None:
        super().__init__(**shape)
        self._step_s, self._token_s = step_s, token_s

    def run(self, step: Step) -> Sampled:
        time.sleep(self._step_s if step.is_decode else self._token_s * int(step.chunk_new.sum()))
        return super().run(step)

    def warm_up(self) -> Pace:  # type: ignore[override]
        pace = measured_pace(self)
        for row in self.kv:
            row.clear()
        self.steps.clear()
        return pace


def test_a_step_and_a_prompt_token_are_measured_before_the_first_request() -> None:
    with running(SlowSession(0.02, 0.002, context=128)) as (engine, _):
        assert 0.02 <= engine.meter.totals[STEP_S] < 0.06
        assert 0.002 <= engine.meter.totals[PROMPT_TOKEN_S] < 0.006


def test_a_short_context_is_measured_too() -> None:
    assert measured_pace(FakeSession(context=PROMPT_TOKENS // 2)).step_s > 0


@pytest.mark.slow
def test_what_takes_long_is_not_measured_again_and_again() -> None:
    session = FakeSession(context=128)
    slow = SlowSession(0.0, 1.1 / PROMPT_TOKENS, context=128)
    measured_pace(session)
    measured_pace(slow)
    assert len(session.steps) == 1 + 3 + 3 and len(slow.steps) == 1 + 3 + 1


@pytest.mark.slow
def test_on_a_slow_machine_no_chunk_takes_more_than_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first prompt on, and whether or not it would fit one chunk."""
    monkeypatch.setattr("glmserve.engine.scheduler.chunk_budget.LONGEST_S", 0.05)
    with running(SlowSession(0.001, 0.002, context=256)) as (engine, session):
        receiver = Receiver()
        engine.submit(request(list(range(200)), receiver))
        receiver.wait()
        chunks = [int(step.chunk_new.sum()) for step in session.steps if len(step.chunk_new)]
        assert max(chunks) <= 25 and sum(chunks) == 200


@pytest.mark.slow
def test_a_short_prompt_passes_a_long_one_that_is_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo's prompt takes a minute on a slow machine; whoever only writes does not wait for that."""
    monkeypatch.setattr("glmserve.engine.scheduler.chunk_budget.LONGEST_S", 0.04)
    with running(SlowSession(0.001, 0.002, context=512)) as (engine, session):
        long, shorts = Receiver(), [Receiver() for _ in range(3)]
        engine.submit(request(list(range(400)), long, max_tokens=2))
        assert eventually(lambda: bool(session.steps))
        for number, short in enumerate(shorts):
            engine.submit(request([900 + 10 * number, 5], short, max_tokens=2))
        for short in shorts:
            assert short.wait() and not long.events and short.tokens == [6, 7]
        assert long.wait() and long.tokens == [400, 401]  # and every row held its own tokens meanwhile


@pytest.mark.slow
def test_a_long_prompt_goes_on_however_many_pass_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two that pass, it is given a chunk."""
    monkeypatch.setattr("glmserve.engine.scheduler.chunk_budget.LONGEST_S", 0.04)
    with running(SlowSession(0.0001, 0.002, context=512), slots=3) as (engine, session):
        long, shorts = Receiver(), [Receiver() for _ in range(40)]
        engine.submit(request(list(range(200)), long, max_tokens=2))
        assert eventually(lambda: bool(session.steps))
        for number, short in enumerate(shorts):
            engine.submit(request([500 + number, 5, 6], short, max_tokens=1))
        assert long.wait() and all(short.wait() for short in shorts)
        reads = [int(step.chunk_new[0]) for step in session.steps if len(step.chunk_new)]
        last = max(at for at, tokens in enumerate(reads) if tokens > 3)
        assert not any(one == other == 3 for one, other in pairwise(reads[:last]))


@pytest.mark.parametrize(
    ("token_s", "tokens"), [(0.0001, 256), (LONGEST_S / 100, 100), (LONGEST_S, 8)], ids=["fast", "slow", "slower"]
)
def test_a_chunk_is_never_shorter_than_what_costs_a_step(token_s: float, tokens: int) -> None:
    budget = ChunkBudget(8)
    assert budget.most_tokens(256) == 256
    budget.observe_step(0, 1, token_s)
    assert budget.most_tokens(256) == budget.chunk_tokens(0, 1, 256) == tokens


class SlowVision:
    """An encoder that takes so long for each patch."""

    def __init__(self, patch_s: float) -> None:
        self._patch_s = patch_s

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        time.sleep(self._patch_s * patches.shape[1])
        return np.zeros((len(patches), patches.shape[1] // 4, CHECKPOINT.text.hidden), np.float32)


def test_a_server_tells_its_pace_before_it_takes_requests() -> None:
    """What the launcher reads, and warns of a machine that is too slow for the deadline."""
    session = SlowSession(0.01, 0.001, rows=4, context=512, vocabulary=CHECKPOINT.text.vocabulary)
    told: dict[str, float] = {}
    server = EngineServer.around(
        session,
        CHECKPOINT,
        EngineSettings(slots=2, warm_rows=0, context_tokens=512),
        DEMO,
        SlowVision(0.0002),
        lambda metric, value: told.__setitem__(metric.name, value),
    )
    try:
        measured = {f"glm_measured_{what}_seconds" for what in ("step", "prompt_token", "image_patch")}
        assert eventually(lambda: measured <= told.keys())
    finally:
        server.close()
    assert 0.01 <= told["glm_measured_step_seconds"] < 0.1
    assert 0.001 <= told["glm_measured_prompt_token_seconds"] < 0.01
    assert 0.0002 <= told["glm_measured_image_patch_seconds"] < 0.002
