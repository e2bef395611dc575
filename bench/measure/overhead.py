"""What Triton, gRPC, the gateway and HTTP cost on top of the bare engine: throughput, and time to the first token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.synthetic import FULL, THIN, Shape
from bench.harness import Run, in_turn
from bench.load.closed_loop import ask, run_round
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Question, QuestionMaker
from bench.records import Row
from bench.servers.fleet import service_on

CLIENTS = 16
_PHOTOS = 25


def measure(run: Run) -> list[Row]:
    """One row: the share of throughput lost, and the milliseconds added to the first token."""
    lost, added = _throughput_lost(run), _first_token_added(run)
    return [{"clients": CLIENTS, **lost, **added, **run.row(), "photos_a_round": _PHOTOS}]


@contextmanager
def _both_sides(shape: Shape, run: Run) -> Iterator[tuple[BareEngine, Preparer, str]]:
    """A bare engine with what prepares its requests, and the address of the service."""
    build = run.build(shape)
    with bare_engine(build, run.threads) as bare, service_on(build, run.threads) as url:
        yield bare, Preparer(build), url


def _throughput_lost(run: Run) -> Row:
    """The same questions through HTTP and, as requests made beforehand, straight into the engine."""
    with _both_sides(FULL, run) as (bare, preparer, url):
        maker = QuestionMaker(preparer.tokenizer, seed=2)

        def one_round(number: int) -> dict[str, float]:
            questions = maker.questions(CLIENTS if number >= 0 else 1)
            requests = [preparer.request(question) for question in questions]
            alone, over_http = in_turn(
                number,
                lambda: bare.tokens_per_s(requests),
                lambda: run_round(url, questions, CLIENTS).tokens_per_s,
            )
            return {"throughput_lost": 1 - over_http / alone}

        return run.spreads("Throughput", one_round, warm_ups=1)


def _first_token_added(run: Run) -> Row:
    """Answers of one token to a photo each, over HTTP and in this process, in turn; the median of a round's
    differences."""
    with _both_sides(THIN, run) as (bare, preparer, url):
        maker = QuestionMaker(preparer.tokenizer, seed=3)

        def alone_s(question: Question) -> float:
            began = time.perf_counter()
            return bare.answer(preparer.request(question, max_tokens=1)).times[0] - began

        def added_s(turn: int, question: Question) -> float:
            alone, over_http = in_turn(
                turn, lambda: alone_s(question), lambda: ask(url, question, max_tokens=1).seconds
            )
            return over_http - alone

        def one_round(number: int) -> dict[str, float]:
            photos = maker.questions(_PHOTOS if number >= 0 else 1, PHOTO)
            return {"first_token_added_ms": 1000 * median(added_s(*turn) for turn in enumerate(photos))}

        return run.spreads("First token", one_round, warm_ups=1)
