"""Arrivals at 0.8 and at twice the capacity, through the gateway: how long answers and refusals take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.checkpoints.builds import CACHE
from bench.checkpoints.synthetic import DEMO
from bench.harness import Run
from bench.load.beside import bare_echo
from bench.load.closed_loop import VISION_PATH, Reply, send
from bench.load.open_loop import arrive
from bench.load.prompts import QuestionMaker
from bench.load.steady import SteadyLoad, tally
from bench.records import Row
from bench.servers.fleet import UNLIMITED, Fleet, running
from bench.servers.paced_engine import Pace
from bench.servers.stub_build import write_stub_build
from bench.simulation.step_times import StepTimes
from glmserve.model.tokenizer import Tokenizer

TIMES = StepTimes(decode_s=0.02, row_s=0.0005, prefill_s=0.01, token_s=0.0001)
"""Steps as a GPU might have them, so that answers wait for a slot and not for this machine's processors."""
_CALM, _FLOOD = 0.8, 2.0
_SLOTS = 16
_TOKENS = (24, 64)
_QUESTIONS = 64
_CROWD_S, _ARRIVE_S = 15.0, 50.0
_BEGIN_S = 10.0
"""What arrives earlier does not count: at the beginning of a flood everybody is let in, as a crowd would be."""
_PAUSE_S = 3.0
_VARIABLES = UNLIMITED | {"GLM_ENGINE_REQUIRE_CERTIFICATE": "false"}


def measure(run: Run) -> list[Row]:
    """One row. The capacity is what a crowd of clients gets that ask again when they are answered."""
    CACHE.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="floods-", dir=CACHE) as name,
        running(Fleet(Path(name), write_stub_build(Path(name), Pace(TIMES, "a")), 1, 1, _VARIABLES)) as fleet,
    ):
        bodies = _bodies(QuestionMaker(Tokenizer.read(DEMO), seed=23))
        capacity = _capacity(fleet.url, bodies)
        run.say(f"{capacity:.1f} answers a second at most")

        def one_round(number: int) -> dict[str, float]:
            calm, flood = (_arrivals(fleet.url, bodies, load, capacity, number) for load in (_CALM, _FLOOD))
            return {
                **{f"calm_{name}": value for name, value in calm.items()},
                **{f"flood_{name}": value for name, value in flood.items()},
                "p99_ratio": flood["p99_s"] / calm["p99_s"],
                "refusal_beyond_ms": flood["refusal_p99_ms"] - flood["echo_p99_ms"],
            }

        loads = {"calm": _CALM, "flood": _FLOOD}
        return [run.row(**loads, capacity_per_s=round(capacity, 1), **run.spreads("Floods", one_round))]


def _arrivals(url: str, bodies: Sequence[bytes], load: float, capacity: float, seed: int) -> dict[str, float]:
    """What becomes of requests that arrive at this share of the capacity."""
    time.sleep(_PAUSE_S)
    began = time.monotonic()
    with bare_echo() as echo:
        ask = partial(send, url + VISION_PATH)
        replies = arrive(lambda number: ask(bodies[number % len(bodies)]), load * capacity, _ARRIVE_S, seed)
    counted = [reply for reply in replies if reply.began >= began + _BEGIN_S]
    done, refused = ([reply for reply in counted if reply.how == how] for how in ("done", "503"))
    if len(done) + len(refused) < len(counted):
        raise RuntimeError(f"Of {len(counted)} requests {len(done)} were answered and {len(refused)} refused.")
    in_time = sum(began + _BEGIN_S <= reply.ended < began + _ARRIVE_S for reply in replies if reply.how == "done")
    p50, p99 = np.percentile([reply.seconds for reply in done], (50, 99))
    return {
        "p50_s": float(p50),
        "p99_s": float(p99),
        "goodput": in_time / (_ARRIVE_S - _BEGIN_S) / capacity,
        "refused": len(refused) / len(counted),
        "refusal_p50_ms": _ms(refused, 50),
        "refusal_p99_ms": _ms(refused, 99),
        "echo_p99_ms": float(np.percentile(echo, 99)) * 1000,
    }


def _ms(replies: Sequence[Reply], percent: float) -> float:
    """0 where there are none."""
    return float(np.percentile([reply.seconds for reply in replies], percent)) * 1000 if replies else 0.0


def _capacity(url: str, bodies: Sequence[bytes]) -> float:
    """Answers a second while all slots are taken."""
    with SteadyLoad(url, 2 * _SLOTS, lambda client, chance: chance.choice(bodies)) as load:
        time.sleep(_PAUSE_S)
        before = tally(load.endings)["done"]
        time.sleep(_CROWD_S)
        return (tally(load.endings)["done"] - before) / _CROWD_S


def _bodies(maker: QuestionMaker) -> list[bytes]:
    """Questions of about the same work, with answers of different lengths."""
    lengths = np.linspace(*_TOKENS, _QUESTIONS).round().astype(int)
    return [maker.question().body(int(tokens)) for tokens in lengths]
