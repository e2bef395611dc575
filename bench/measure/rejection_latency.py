"""How fast a wrong request is rejected while others have large photos decoded."""

from __future__ import annotations

import time

import numpy as np

from bench.checkpoints.synthetic import DEMO
from bench.harness import Run
from bench.load.closed_loop import VISION_PATH, expect
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.load.steady import SteadyLoad
from bench.records import Row
from bench.servers.processes import Server, fake_triton, gateway_before

PHOTO = (4000, 3000)
SENDERS = 4
_WRONG = b'{"prompt": "Where is the picture?"}'
_REJECTIONS = 200
_PAUSE_S = 0.02


def measure(run: Run) -> list[Row]:
    """One row: milliseconds from connecting to having read the rejection, alone and beside the senders."""
    build = run.build(DEMO)
    photo = QuestionMaker(Preparer(build).tokenizer, seed=17).question(PHOTO).body(max_tokens=1)
    with fake_triton(0.0) as triton, gateway_before(build, triton) as gateway:

        def one_round(_number: int) -> dict[str, float]:
            alone_p50, _ = _rejection_ms(gateway)
            with SteadyLoad(gateway.url, SENDERS, lambda _client, _chance: photo):
                p50, p95 = _rejection_ms(gateway)
            return {"alone_p50_ms": alone_p50, "p50_ms": p50, "p95_ms": p95}

        return [run.row(senders=SENDERS, **run.spreads("Rejections", one_round))]


def _rejection_ms(gateway: Server) -> tuple[float, float]:
    """The median and the 95th percentile of many rejections, one after another."""
    taken_s = []
    for _ in range(_REJECTIONS):
        taken_s.append(expect(gateway.url + VISION_PATH, _WRONG, status=400).seconds)
        time.sleep(_PAUSE_S)
    p50, p95 = 1000 * np.percentile(taken_s, (50, 95))
    return float(p50), float(p95)
