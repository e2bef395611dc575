"""What company and draft tokens change about an answer: in fp32 nothing, and what docs/engine.md says elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from shared_builds import build_of_demo

from bench.baselines.bare_engine import bare_engine
from bench.load.closed_loop import at_once
from bench.load.in_process import Preparer
from demo.golden_set import drawn_image, golden_questions
from export.precision import Precision
from gateway.triton.backend import GenerateRequest
from glmserve.engine.metrics import DRAFTED_TOKENS, Metric

AT_ONCE = 12
MOST_ROUNDS = 50
ALONE: Mapping[str, str] = {"GLM_ENGINE_DRAFT_TOKENS": "0"}
WITH_DRAFTS: Mapping[str, str] = {"GLM_ENGINE_DRAFT_TOKENS": "6"}
pytestmark = [pytest.mark.build, pytest.mark.slow]


def questions(build: Path) -> list[GenerateRequest]:
    """Golden questions about images, of several lengths."""
    preparer, asked = Preparer(build), []
    for golden in [question for question in golden_questions() if question.has_image][:AT_ONCE]:
        file = io.BytesIO()
        drawn_image(golden.seed).save(file, "PNG")
        asked.append(preparer.prepared(file.getvalue(), golden.question, max_tokens=48))
    return asked


def answers(build: Path, settings: Mapping[str, str], clients: int) -> list[list[int]]:
    """The tokens of each greedy answer, so many requests at a time, by a new engine."""
    with bare_engine(build, 1, more=settings) as engine:
        return at_once(lambda request: engine.answer(request).tokens, questions(build), clients)


def test_in_fp32_neither_company_nor_caches_nor_draft_tokens_change_an_answer() -> None:
    """Measured times decide when draft tokens are tried, so the questions are asked until some were."""
    build, drafted = build_of_demo(), 0.0

    def count(metric: Metric, amount: float) -> None:
        nonlocal drafted
        drafted += amount * (metric is DRAFTED_TOKENS)

    alone = answers(build, ALONE, 1)
    assert all(alone) and len({tuple(answer) for answer in alone}) > 1
    assert answers(build, ALONE, AT_ONCE) == alone
    assert answers(build, WITH_DRAFTS, AT_ONCE) == alone
    with bare_engine(build, 1, count, WITH_DRAFTS) as engine:
        for _ in range(MOST_ROUNDS):
            assert at_once(lambda request: engine.answer(request).tokens, questions(build), 1) == alone
            if drafted:
                break
    assert drafted


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_rounded_to_bytes_a_question_asked_alone_and_without_drafts_has_one_answer(precision: Precision) -> None:
    build = build_of_demo(precision)
    assert answers(build, ALONE, 1) == answers(build, ALONE, 1)
