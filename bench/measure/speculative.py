"""What speculative decoding gains: decoding with and without, for one request at a time and for several, in turn.

Answers of random weights fall into loops, whose tokens are drafted far more often than people's words; the demo's
answers are sentences about images, and fairer.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import DEMO, FULL
from bench.harness import Run, in_turn
from bench.load.closed_loop import at_once
from bench.load.in_process import Preparer
from bench.load.prompts import Question, QuestionMaker
from bench.records import Row
from demo.golden_set import drawn_image, golden_questions
from glmserve.engine.metrics import ACCEPTED_TOKENS, DRAFTED_TOKENS, Metric

_QUESTIONS = {"random": 8, "demo": 40}
"""In each round."""
_AT_ONCE = (1, 4, 16)
_Spent = tuple[float, int]
"""The seconds after the first token of some answers, and the tokens after it, added up."""


def measure(run: Run) -> list[Row]:
    """A row for each kind of answer, each precision and number of requests at once: tokens a second of an answer with
    draft tokens over those without."""
    rows = []
    for answers, model in (("random", FULL), ("demo", DEMO)):
        for precision in PRECISIONS:
            build = run.build(model, precision)
            questions = _golden() if answers == "demo" else _random(build)
            for count in _AT_ONCE:
                found = _compare(build, questions, count, _QUESTIONS[answers] // count, run, f"{answers} {precision}")
                rows.append({"answers": answers, "precision": precision, "at_once": count, **found, **run.row()})
    return rows


def _compare(build: Path, questions: Iterator[Question], count: int, turns: int, run: Run, title: str) -> Row:
    preparer = Preparer(build)
    counted: defaultdict[Metric, float] = defaultdict(float)

    def note(metric: Metric, amount: float) -> None:
        counted[metric] += amount

    with (
        bare_engine(build, run.threads, more={"GLM_ENGINE_DRAFT_TOKENS": "0"}) as plain,
        bare_engine(build, run.threads, note) as drafting,
    ):

        def one_turn(turn: int) -> tuple[_Spent, _Spent]:
            asked = list(islice(questions, count))
            return in_turn(turn, lambda: _spent(drafting, preparer, asked), lambda: _spent(plain, preparer, asked))

        def one_round(number: int) -> dict[str, float]:
            with_drafts, without = zip(*(one_turn(turn + number) for turn in range(max(1, turns))), strict=True)
            return {"tokens_per_s_ratio": _speed(with_drafts) / _speed(without)}

        spreads = run.spreads(f"Speculative decoding, {title}, {count} at once", one_round)
    return {**spreads, "accepted_share": round(counted[ACCEPTED_TOKENS] / max(1, counted[DRAFTED_TOKENS]), 3)}


def _spent(engine: BareEngine, preparer: Preparer, questions: list[Question]) -> _Spent:
    """What all questions at once took."""

    def ask(question: Question) -> _Spent:
        answer = engine.answer(preparer.request(question))
        return time.perf_counter() - answer.times[0], len(answer.tokens) - 1

    seconds, tokens = zip(*at_once(ask, questions, len(questions)), strict=True)
    return sum(seconds), sum(tokens)


def _speed(spent: tuple[_Spent, ...]) -> float:
    return sum(tokens for _, tokens in spent) / sum(seconds for seconds, _ in spent)


def _random(build: Path) -> Iterator[Question]:
    maker = QuestionMaker(Preparer(build).tokenizer, seed=6)
    while True:
        yield maker.question()


def _golden() -> Iterator[Question]:
    """The demo's golden questions about images, over and over."""
    asked = [question for question in golden_questions() if question.has_image]
    while True:
        for question in asked:
            file = io.BytesIO()
            drawn_image(question.seed).save(file, "PNG")
            yield Question(file.getvalue(), question.question)
