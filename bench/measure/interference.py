"""What a long prompt does to eight streams: the gaps between their tokens, before it joins and during its prefill."""

from __future__ import annotations

import threading
import time

import numpy as np

from bench.baselines.bare_engine import Listener, bare_engine
from bench.checkpoints.synthetic import FULL
from bench.harness import Run
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.records import Row

STREAMS = 8
LONG_PROMPT_TOKENS = 4000
_TOKENS_BEFORE = 60
_MOST_TOKENS = 4000
_SHORT_PROMPT_TOKENS = 64
_TIMEOUT_S = 600.0


def measure(run: Run) -> list[Row]:
    """One row: medians over the rounds, gaps as multiples of the median gap before the prompt joins."""
    build = run.build(FULL)
    preparer = Preparer(build)
    maker = QuestionMaker(preparer.tokenizer, seed=5)

    def one_round(_number: int) -> dict[str, float]:
        leave = threading.Event()
        streams = [Listener(_TOKENS_BEFORE) for _ in range(STREAMS)]
        with bare_engine(build, run.threads) as engine:
            for stream in streams:
                request = preparer.text(maker.prompt(_SHORT_PROMPT_TOKENS), _SHORT_PROMPT_TOKENS, _MOST_TOKENS)
                engine.submit(request, stream, leave.is_set)
            _wait([stream.reached for stream in streams])
            joined = time.perf_counter()
            all_running = max(stream.times[1] for stream in streams)  # earlier gaps still held the others' prompts
            engine.answer(preparer.text(maker.prompt(LONG_PROMPT_TOKENS), LONG_PROMPT_TOKENS, max_tokens=1))
            prefilled = time.perf_counter()
            leave.set()
            _wait([stream.ended for stream in streams])
        before, joining = _gaps_s(streams, all_running, joined), _gaps_s(streams, joined, prefilled)
        unit, before_p99 = np.percentile(before, (50, 99))
        p50, p99 = np.percentile(joining, (50, 99))
        return {
            "before_p99_ratio": before_p99 / unit,
            "joining_p50_ratio": p50 / unit,
            "joining_p99_ratio": p99 / unit,
            "joining_p99_over_p50": p99 / p50,
        }

    spreads = run.spreads("Interference", one_round)
    return [run.row(streams=STREAMS, joining_prompt_tokens=LONG_PROMPT_TOKENS, **spreads)]


def _gaps_s(streams: list[Listener], begin: float, end: float) -> np.ndarray:
    """All streams' gaps that ended between two moments."""
    times = [np.array(stream.times) for stream in streams]
    return np.concatenate([np.diff(one)[(one[1:] > begin) & (one[1:] <= end)] for one in times])


def _wait(events: list[threading.Event]) -> None:
    for event in events:
        if not event.wait(_TIMEOUT_S):
            raise TimeoutError("The engine did not answer in time.")
