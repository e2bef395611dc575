"""What guessing ahead brings: decoding with and without, for one request at a time and for several, in turn.

Answers of random weights fall into loops, which are guessed far more often than people's words; the demo's answers are
sentences about pictures, and fairer.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import PRECISIONS, build_of, checkpoint_of
from bench.checkpoints.synthetic import DEMO, FULL
from bench.load.closed_loop import at_once
from bench.load.in_process import Preparer, generate
from bench.load.prompts import Asker, Question
from bench.records import Row, Spread
from demo.golden_set import drawn_image, golden_questions
from glmserve.engine.metrics import ACCEPTED_TOKENS, DRAFTED_TOKENS, Metric

_QUESTIONS = {"random": 8, "demo": 40}
"""In each round."""
_AT_ONCE = (1, 4, 16)

Say = Callable[[str], None]


@dataclass
class _Side:
    """One bare engine, and the seconds and tokens of its answers after their first token."""

    engine: BareEngine
    seconds: float = 0.0
    tokens: int = 0
    speeds: list[float] = field(default_factory=list)

    def answer(self, preparer: Preparer, questions: list[Question]) -> None:
        """All of them at once."""

        def ask(question: Question) -> tuple[float, int]:
            generated = generate(self.engine, preparer.request(question))
            return time.perf_counter() - generated.first_token_at, generated.tokens - 1

        for seconds, tokens in at_once(ask, questions, len(questions)):
            self.seconds += seconds
            self.tokens += tokens

    def end_round(self) -> None:
        self.speeds.append(self.tokens / self.seconds)
        self.seconds, self.tokens = 0.0, 0


def measure(threads: int, rounds: int, say: Say) -> list[Row]:
    """A row for each kind of answer, each precision and number of requests at once: tokens a second of an answer with
    guesses over those without."""
    rows = []
    checkpoints = {"random": checkpoint_of(FULL, say), "demo": DEMO}
    for answers, checkpoint in checkpoints.items():
        for precision in PRECISIONS:
            build = build_of(checkpoint, precision, say)
            questions = _golden() if answers == "demo" else _random(build)
            for count in _AT_ONCE:
                rows.append(_compare(build, questions, answers, precision, count, threads, rounds, say))
    return rows


def _compare(
    build: Path,
    questions: Iterator[Question],
    answers: str,
    precision: str,
    count: int,
    threads: int,
    rounds: int,
    say: Say,
) -> Row:
    preparer = Preparer(build)
    counted: defaultdict[Metric, float] = defaultdict(float)

    def note(metric: Metric, amount: float) -> None:
        counted[metric] += amount

    with ExitStack() as stack:
        plain = _Side(stack.enter_context(bare_engine(build, threads, more={"GLM_ENGINE_DRAFT_TOKENS": "0"})))
        guessing = _Side(stack.enter_context(bare_engine(build, threads, note)))
        for number in range(rounds):
            for turn in range(max(1, _QUESTIONS[answers] // count)):
                asked = list(islice(questions, count))
                for one in (plain, guessing) if (turn + number) % 2 else (guessing, plain):
                    one.answer(preparer, asked)
            plain.end_round()
            guessing.end_round()
            say(
                f"Guesses, {answers} answers, {precision}, {count} at once, round {number + 1} of {rounds}: "
                f"{guessing.speeds[-1] / plain.speeds[-1]:.2f} times the tokens a second"
            )
    ratios = [fast / slow for fast, slow in zip(guessing.speeds, plain.speeds, strict=True)]
    return {
        "answers": answers,
        "precision": precision,
        "at_once": count,
        **Spread.of(ratios).fields("tokens_per_s_ratio"),
        "accepted_share": round(counted[ACCEPTED_TOKENS] / max(1, counted[DRAFTED_TOKENS]), 3),
        "rounds": rounds,
        "threads": threads,
    }


def _random(build: Path) -> Iterator[Question]:
    asker = Asker(Preparer(build).tokenizer, seed=6)
    while True:
        yield asker.question()


def _golden() -> Iterator[Question]:
    """The demo's golden questions about pictures, over and over."""
    asked = [question for question in golden_questions() if question.has_image]
    while True:
        for question in asked:
            file = io.BytesIO()
            drawn_image(question.seed).save(file, "PNG")
            yield Question(file.getvalue(), question.question)
