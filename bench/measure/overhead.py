"""What Triton, gRPC, the gateway and HTTP cost on top of the bare engine: throughput, and time to the first token."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.synthetic import FULL, THIN
from bench.harness import Run, in_turn
from bench.load.closed_loop import ask, at_once, run_round
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Question, QuestionMaker
from bench.records import Row
from bench.servers.processes import service_on
from gateway.triton.backend import GenerateRequest

CLIENTS = 16
_PHOTOS = 25


def measure(run: Run) -> list[Row]:
    """One row: the share of throughput lost, and the milliseconds added to the first token."""
    full, thin = run.build(FULL), run.build(THIN)
    lost, added = _throughput_lost(full, run), _first_token_added(thin, run)
    return [{"clients": CLIENTS, **lost, **added, **run.row(), "photos_a_round": _PHOTOS}]


def _throughput_lost(build: Path, run: Run) -> Row:
    """The same questions through HTTP and, as requests made beforehand, straight into the engine."""
    preparer = Preparer(build)
    maker = QuestionMaker(preparer.tokenizer, seed=2)
    with bare_engine(build, run.threads) as bare, service_on(build, run.threads) as url:

        def one_round(number: int) -> dict[str, float]:
            questions = [maker.question() for _ in range(CLIENTS if number >= 0 else 1)]
            requests = [preparer.request(question) for question in questions]
            alone, over_http = in_turn(
                number,
                lambda: _bare_tokens_per_s(bare, requests),
                lambda: run_round(url, questions, CLIENTS).tokens_per_s,
            )
            return {"throughput_lost": 1 - over_http / alone}

        return run.spreads("Throughput", one_round, warm_ups=1)


def _bare_tokens_per_s(bare: BareEngine, requests: list[GenerateRequest]) -> float:
    began = time.perf_counter()
    answers = at_once(bare.answer, requests, CLIENTS)
    return sum(len(answer.tokens) for answer in answers) / (time.perf_counter() - began)


def _first_token_added(build: Path, run: Run) -> Row:
    """Answers of one token to a photo each, over HTTP and in this process, in turn; the median of a round's
    differences."""
    preparer = Preparer(build)
    maker = QuestionMaker(preparer.tokenizer, seed=3)
    with bare_engine(build, run.threads) as bare, service_on(build, run.threads) as url:

        def added_s(turn: int, question: Question) -> float:
            alone, over_http = in_turn(
                turn,
                lambda: _bare_first_token_s(preparer, bare, question),
                lambda: ask(url, question, max_tokens=1).seconds,
            )
            return over_http - alone

        def one_round(number: int) -> dict[str, float]:
            added = [added_s(photo, maker.question(PHOTO)) for photo in range(_PHOTOS if number >= 0 else 1)]
            return {"first_token_added_ms": 1000 * median(added)}

        return run.spreads("First token", one_round, warm_ups=1)


def _bare_first_token_s(preparer: Preparer, bare: BareEngine, question: Question) -> float:
    began = time.perf_counter()
    return bare.answer(preparer.request(question, max_tokens=1)).times[0] - began
