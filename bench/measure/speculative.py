"""What speculative decoding gains: decoding with and without, for one request at a time and for several, in turn.

Answers of random weights fall into loops, whose tokens are drafted far more often than people's words; the demo's
answers are sentences about images, and fairer.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import DEMO, FULL, Shape
from bench.harness import Run, in_turn
from bench.load.closed_loop import at_once
from bench.load.in_process import Preparer
from bench.load.prompts import Question, QuestionMaker
from bench.records import Row
from demo.golden_set import drawn_image, golden_questions
from gateway.triton.backend import GenerateRequest
from glmserve.engine.metrics import ACCEPTED_TOKENS, DRAFTED_TOKENS, Metric

_MODELS: dict[str, tuple[Shape | Path, int]] = {"random": (FULL, 8), "demo": (DEMO, 40)}
"""What answers, and its questions in each round."""
_AT_ONCE = (1, 4, 16)


def measure(run: Run) -> list[Row]:
    """A row for each kind of answer, each precision and number of requests at once: tokens a second of an answer with
    draft tokens over those without."""
    rows = []
    for answers, (model, questions) in _MODELS.items():
        for precision in PRECISIONS:
            build = run.build(model, precision)
            requests = _requests(Preparer(build), answers)
            for count in _AT_ONCE:
                run.say(f"Speculative decoding, {answers} {precision}, {count} at once")
                found = _compare(build, requests, count, max(1, questions // count), run)
                rows.append({"answers": answers, "precision": precision, "at_once": count, **found, **run.row()})
    return rows


def _compare(build: Path, requests: Iterator[GenerateRequest], count: int, turns: int, run: Run) -> Row:
    counted: defaultdict[Metric, float] = defaultdict(float)

    def note(metric: Metric, amount: float) -> None:
        counted[metric] += amount

    with (
        bare_engine(build, run.threads, more={"GLM_ENGINE_DRAFT_TOKENS": "0"}) as plain,
        bare_engine(build, run.threads, note) as drafting,
    ):

        def one_turn(turn: int) -> tuple[np.ndarray, np.ndarray]:
            asked = list(islice(requests, count))
            return in_turn(turn, lambda: _spent(drafting, asked), lambda: _spent(plain, asked))

        def one_round(number: int) -> dict[str, float]:
            sides = np.sum([one_turn(turn + number) for turn in range(turns)], axis=0)
            with_drafts, without = sides[:, 1] / sides[:, 0]
            return {"tokens_per_s_ratio": with_drafts / without}

        found = run.spreads("Drafting over plain", one_round)
    return {**found, "accepted_share": round(counted[ACCEPTED_TOKENS] / max(1, counted[DRAFTED_TOKENS]), 3)}


def _spent(engine: BareEngine, requests: list[GenerateRequest]) -> np.ndarray:
    """The seconds after the first token of answers at once, and the tokens after it, added up."""

    def ask(request: GenerateRequest) -> tuple[float, int]:
        answer = engine.answer(request)
        return time.perf_counter() - answer.times[0], len(answer.tokens) - 1

    spent: np.ndarray = np.sum(np.array(at_once(ask, requests, len(requests))), axis=0)
    return spent


def _requests(preparer: Preparer, answers: str) -> Iterator[GenerateRequest]:
    """New random questions, or the demo's golden questions about images over and over."""
    if answers == "random":
        maker = QuestionMaker(preparer.tokenizer, seed=6)
        while True:
            yield preparer.request(maker.question())
    for golden in cycle(question for question in golden_questions() if question.has_image):
        file = io.BytesIO()
        drawn_image(golden.seed).save(file, "PNG")
        yield preparer.request(Question(file.getvalue(), golden.question))
