"""What eight streams feel when a long prompt joins them: the gaps between their tokens, before it and meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import FULL
from bench.load.in_process import Preparer
from bench.load.prompts import Asker
from bench.records import Row, Spread
from gateway.triton.backend import GenerateRequest
from glmserve.engine.request import Event, Failed, Tokens
from glmserve.sampling_parameters import Sampling

STREAMS = 8
LONG_PROMPT_TOKENS = 4000
_TOKENS_BEFORE = 60
_MOST_TOKENS = 4000
_DEADLINE_S = 600.0
_SHORT_PROMPT_TOKENS = 64

Say = Callable[[str], None]


def measure(threads: int, rounds: int, say: Say) -> list[Row]:
    """One row: medians over the rounds, gaps as multiples of the median gap before the prompt joins."""
    build = build_of(checkpoint_of(FULL, say), FP32, say)
    asker = Asker(Preparer(build).tokenizer, seed=5)
    found = []
    for number in range(rounds):
        found.append(_round(build, threads, Preparer(build), asker))
        say(
            f"Interference, round {number + 1} of {rounds}, in median gaps before: p99 before {found[-1][0]:.2f}; "
            f"while joining p50 {found[-1][1]:.2f}, p99 {found[-1][2]:.2f}"
        )
    before_p99, joining_p50, joining_p99 = (Spread.of(column) for column in zip(*found, strict=True))
    within = Spread.of([p99 / p50 for _, p50, p99 in found])
    return [
        {
            "streams": STREAMS,
            "joining_prompt_tokens": LONG_PROMPT_TOKENS,
            **before_p99.fields("before_p99_ratio"),
            **joining_p50.fields("joining_p50_ratio"),
            **joining_p99.fields("joining_p99_ratio"),
            **within.fields("joining_p99_over_p50"),
            "rounds": rounds,
            "threads": threads,
        }
    ]


class Stream:
    """Hears one request's events and notes when each token came; written by whoever delivers the events."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.enough = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self.times += [time.perf_counter()] * len(event.tokens)
        if len(self.times) >= _TOKENS_BEFORE:
            self.enough.set()
        if event.is_last:
            self.enough.set()  # also when it failed, so that nobody waits for more
            self.ended.set()

    def gaps_s(self, begin: float, end: float) -> list[float]:
        """The gaps that ended between two moments."""
        return [after - before for before, after in itertools.pairwise(self.times) if begin < after <= end]


def _round(build: Path, threads: int, preparer: Preparer, asker: Asker) -> tuple[float, float, float]:
    """p99 before, p50 and p99 while the prompt is read, in median gaps before."""
    streams, leave = [Stream() for _ in range(STREAMS)], threading.Event()
    with bare_engine(build, threads) as engine:
        for stream in streams:
            engine.submit(_request(preparer, asker, _SHORT_PROMPT_TOKENS, _MOST_TOKENS), stream, leave.is_set)
        for stream in streams:
            _wait(stream.enough)
        joined = time.perf_counter()
        all_running = max(stream.times[1] for stream in streams)  # the gaps before it still held the others' prompts
        _read_long_prompt(engine, _request(preparer, asker, LONG_PROMPT_TOKENS, 1))
        read = time.perf_counter()
        leave.set()
        for stream in streams:
            _wait(stream.ended)
    before = [gap for stream in streams for gap in stream.gaps_s(all_running, joined)]
    joining = [gap for stream in streams for gap in stream.gaps_s(joined, read)]
    unit = float(np.median(before))
    return _p99(before) / unit, float(np.median(joining)) / unit, _p99(joining) / unit


def _read_long_prompt(engine: BareEngine, request: GenerateRequest) -> None:
    heard: list[Event] = []
    ended = threading.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        if event.is_last:
            ended.set()

    engine.submit(request, hear, lambda: False)
    _wait(ended)
    if isinstance(heard[-1], Failed):
        raise heard[-1].error


def _request(preparer: Preparer, asker: Asker, prompt_tokens: int, max_tokens: int) -> GenerateRequest:
    ids = preparer.tokenizer.encode_plain(asker.prompt(prompt_tokens))[:prompt_tokens]
    return GenerateRequest(
        request_id="bench",
        input_ids=np.asarray(ids, np.int64),
        patches=None,
        grids=(),
        sampling=Sampling(max_tokens=max_tokens),
        deadline_s=_DEADLINE_S,
    )


def _wait(event: threading.Event) -> None:
    if not event.wait(_DEADLINE_S):
        raise TimeoutError("The engine did not answer in time.")


def _p99(gaps: list[float]) -> float:
    return float(np.percentile(gaps, 99))
