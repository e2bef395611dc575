"""What a long prompt does to eight streams: the gaps between their tokens, before it joins and during its prefill."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import Listener, bare_engine
from bench.checkpoints.synthetic import FULL
from bench.harness import Run
from bench.load.in_process import Preparer, greedy
from bench.load.prompts import QuestionMaker
from bench.records import Row
from gateway.triton.backend import GenerateRequest

STREAMS = 8
LONG_PROMPT_TOKENS = 4000
_TOKENS_BEFORE = 60
_MOST_TOKENS = 4000
_SHORT_PROMPT_TOKENS = 64
_TIMEOUT_S = 600.0


def measure(run: Run) -> list[Row]:
    """One row: medians over the rounds, gaps as multiples of the median gap before the prompt joins."""
    build = run.build(FULL)
    maker = QuestionMaker(Preparer(build).tokenizer, seed=5)
    spreads = run.spreads("Interference", lambda _number: _round(build, run.threads, maker))
    return [run.row(streams=STREAMS, joining_prompt_tokens=LONG_PROMPT_TOKENS, **spreads)]


def _round(build: Path, threads: int, maker: QuestionMaker) -> dict[str, float]:
    preparer, leave = Preparer(build), threading.Event()
    streams = [Listener(_TOKENS_BEFORE) for _ in range(STREAMS)]
    with bare_engine(build, threads) as engine:
        for stream in streams:
            engine.submit(_request(preparer, maker, _SHORT_PROMPT_TOKENS, _MOST_TOKENS), stream, leave.is_set)
        for stream in streams:
            _wait(stream.reached)
        joined = time.perf_counter()
        all_running = max(stream.times[1] for stream in streams)  # earlier gaps still held the others' prompts
        engine.answer(_request(preparer, maker, LONG_PROMPT_TOKENS, 1))
        read = time.perf_counter()
        leave.set()
        for stream in streams:
            _wait(stream.ended)
    before, joining = _gaps_s(streams, all_running, joined), _gaps_s(streams, joined, read)
    unit = float(np.median(before))
    p50, p99 = float(np.median(joining)) / unit, _p99(joining) / unit
    return {
        "before_p99_ratio": _p99(before) / unit,
        "joining_p50_ratio": p50,
        "joining_p99_ratio": p99,
        "joining_p99_over_p50": p99 / p50,
    }


def _request(preparer: Preparer, maker: QuestionMaker, prompt_tokens: int, max_tokens: int) -> GenerateRequest:
    ids = preparer.tokenizer.encode_plain(maker.prompt(prompt_tokens))[:prompt_tokens]
    return greedy(np.asarray(ids, np.int64), max_tokens)


def _gaps_s(streams: Sequence[Listener], begin: float, end: float) -> list[float]:
    """All streams' gaps that ended between two moments."""
    gaps = [gap for stream in streams for gap in itertools.pairwise(stream.times)]
    return [after - before for before, after in gaps if begin < after <= end]


def _wait(event: threading.Event) -> None:
    if not event.wait(_TIMEOUT_S):
        raise TimeoutError("The engine did not answer in time.")


def _p99(gaps: list[float]) -> float:
    return float(np.percentile(gaps, 99))
