"""What Triton, gRPC, the gateway and HTTP cost on top of the bare engine: throughput, and time to the first token."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import FULL, THIN
from bench.load.closed_loop import ask, at_once, run_round
from bench.load.in_process import Preparer, first_token_s, generate
from bench.load.prompts import PHOTO, Asker
from bench.records import Row, Spread
from bench.servers.processes import service_on
from gateway.triton.backend import GenerateRequest

CLIENTS = 16
_PHOTOS = 25

Say = Callable[[str], None]


def measure(threads: int, rounds: int, say: Say) -> list[Row]:
    """One row: the share of throughput lost, and the milliseconds added."""
    full = build_of(checkpoint_of(FULL, say), FP32, say)
    thin = build_of(checkpoint_of(THIN, say), FP32, say)
    return [
        {
            "clients": CLIENTS,
            **_throughput_lost(full, threads, rounds, say).fields("throughput_lost"),
            **_first_token_added_ms(thin, threads, rounds, say).fields("first_token_added_ms"),
            "rounds": rounds,
            "photos_a_round": _PHOTOS,
            "threads": threads,
        }
    ]


def _throughput_lost(build: Path, threads: int, rounds: int, say: Say) -> Spread:
    """The same questions through HTTP and, as requests made beforehand, straight into the engine."""
    preparer, lost = Preparer(build), []
    asker = Asker(preparer.tokenizer, seed=2)
    with bare_engine(build, threads) as bare, service_on(build, threads) as url:
        for number in range(-1, rounds):  # the first one is short and only warms up
            questions = [asker.question() for _ in range(CLIENTS if number >= 0 else 1)]
            requests = [preparer.request(question) for question in questions]
            if number % 2:  # who goes first changes, so that a machine growing busier favours neither
                over_http = run_round(url, questions, CLIENTS).tokens_per_s
                alone = _bare_tokens_per_s(bare, requests)
            else:
                alone = _bare_tokens_per_s(bare, requests)
                over_http = run_round(url, questions, CLIENTS).tokens_per_s
            share = 1 - over_http / alone
            if number >= 0:
                lost.append(share)
                say(f"Throughput, round {number + 1} of {rounds}: {share:.1%} lost on the way")
    return Spread.of(lost)


def _bare_tokens_per_s(bare: BareEngine, requests: list[GenerateRequest]) -> float:
    began = time.perf_counter()
    answers = at_once(lambda request: generate(bare, request), requests, CLIENTS)
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - began)


def _first_token_added_ms(build: Path, threads: int, rounds: int, say: Say) -> Spread:
    """Answers of one token to a photo each, over HTTP and in this process, each way first by turns; the median of a
    round's differences."""
    preparer, added = Preparer(build), []
    asker = Asker(preparer.tokenizer, seed=3)
    with bare_engine(build, threads) as bare, service_on(build, threads) as url:
        for number in range(-1, rounds):
            seen: list[tuple[float, float]] = []
            for photo in range(_PHOTOS if number >= 0 else 1):
                question = asker.question(PHOTO)
                ways = [
                    lambda q=question: ask(url, q, max_tokens=1).seconds,
                    lambda q=question: first_token_s(preparer, bare, q, max_tokens=1),
                ]
                order = (0, 1) if photo % 2 else (1, 0)
                took = {way: 1000 * ways[way]() for way in order}
                seen.append((took[0], took[1]))
            if number >= 0:
                added.append(median(over_http - alone for over_http, alone in seen))
                both = [median(column) for column in zip(*seen, strict=True)]
                say(f"First token, round {number + 1} of {rounds}: {both[0]:.1f} ms over HTTP, {both[1]:.1f} ms bare")
    return Spread.of(added)
