"""How fast a wrong request is rejected while others have large photos decoded."""

from __future__ import annotations

import http
import json
import time

import numpy as np

from bench.checkpoints.synthetic import DEMO
from bench.harness import Run
from bench.load.closed_loop import VISION_PATH, post
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.load.steady import SteadyLoad, running
from bench.records import Row
from bench.servers.processes import Server, fake_triton, gateway_before

PHOTO = (4000, 3000)
SENDERS = 4
_WRONG = b'{"prompt": "Where is the picture?"}'
_REJECTIONS = 200
_PAUSE_S = 0.02
_THREADS = 64


def measure(run: Run) -> list[Row]:
    """One row: milliseconds from connecting to having read the rejection, alone and beside the senders."""
    build = run.build(DEMO)
    photo = json.dumps(QuestionMaker(Preparer(build).tokenizer, seed=17).question(PHOTO).body(max_tokens=1)).encode()
    with fake_triton(0.0) as triton, gateway_before(build, triton, _THREADS) as gateway:

        def one_round(_number: int) -> dict[str, float]:
            alone_ms = _rejections_ms(gateway)
            with running(SteadyLoad(gateway.url, SENDERS, lambda _client, _chance: photo)):
                p50, p95 = np.percentile(_rejections_ms(gateway), (50, 95))
            return {"alone_p50_ms": float(np.median(alone_ms)), "p50_ms": float(p50), "p95_ms": float(p95)}

        return [run.row(senders=SENDERS, **run.spreads("Rejections", one_round))]


def _rejections_ms(gateway: Server) -> list[float]:
    taken = []
    for _ in range(_REJECTIONS):
        began = time.perf_counter()
        status = post(gateway.url + VISION_PATH, _WRONG)
        taken.append(1000 * (time.perf_counter() - began))
        if status != http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"A wrong request was answered with {status}.")
        time.sleep(_PAUSE_S)
    return taken
