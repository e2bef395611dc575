"""Requests a second that one core carries: our gateway beside the least that FastAPI and uvicorn need, in turn."""

from __future__ import annotations

import json
from itertools import cycle, islice

from bench.checkpoints.synthetic import THIN
from bench.harness import Run, in_turn
from bench.load.closed_loop import VISION_PATH, at_once, expect
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, QuestionMaker
from bench.records import Row
from bench.servers.processes import Server, fake_triton, fastapi_baseline, gateway_before

CLIENTS = 4
_REQUESTS = 300  # a round and side, for processor time is told in hundredths of a second
_WARM_UP_REQUESTS = 20
_BODIES = 12  # different ones
Asked = tuple[str, list[bytes]]
"""A path, and the bodies that are sent there."""


def measure(run: Run) -> list[Row]:
    """A row for text alone and one for photos; answers are one token that comes at once."""
    build, rows = run.build(THIN), []
    with (
        fake_triton(0.0) as triton,
        gateway_before(build, triton) as gateway,
        fastapi_baseline(build, triton) as baseline,
    ):
        for name, (ours, theirs) in _asked(QuestionMaker(Preparer(build).tokenizer, seed=11)).items():
            _send(gateway, ours, _WARM_UP_REQUESTS)
            _send(baseline, theirs, _WARM_UP_REQUESTS)

            def one_round(number: int, ours: Asked = ours, theirs: Asked = theirs) -> dict[str, float]:
                second, first = in_turn(
                    number, lambda: _per_core_s(baseline, theirs), lambda: _per_core_s(gateway, ours)
                )
                return {"requests_per_core_s": first, "rival_requests_per_core_s": second, "ratio": first / second}

            spreads = run.spreads(name, one_round)
            rows.append({"asked": name, **spreads, "clients": CLIENTS, "requests": _REQUESTS, **run.row()})
    return rows


def _asked(maker: QuestionMaker) -> dict[str, tuple[Asked, Asked]]:
    """What our gateway and the baseline are sent: the same, but text alone has a path of its own in the gateway."""
    texts = [maker.prompt(52) for _ in range(_BODIES)]
    photos = VISION_PATH, [question.body(max_tokens=1) for question in maker.questions(_BODIES, PHOTO)]
    limits = {"max_tokens": 1, "temperature": 0}
    chats = [json.dumps({"messages": [{"role": "user", "content": text}], **limits}).encode() for text in texts]
    plain = [json.dumps({"prompt": text, "max_tokens": 1}).encode() for text in texts]
    return {"text": (("/v1/chat/completions", chats), (VISION_PATH, plain)), "photo": (photos, photos)}


def _per_core_s(server: Server, asked: Asked) -> float:
    """Requests for each second of the server's processor time."""
    before_s = server.cpu_s()
    _send(server, asked, _REQUESTS)
    return _REQUESTS / (server.cpu_s() - before_s)


def _send(server: Server, asked: Asked, count: int) -> None:
    path, bodies = asked
    at_once(lambda body: expect(server.url + path, body), list(islice(cycle(bodies), count)), CLIENTS)
