"""Requests a second that one core carries: our gateway beside the least that FastAPI and uvicorn need, in turn."""

from __future__ import annotations

import json
from typing import Any

from bench.checkpoints.synthetic import THIN
from bench.harness import Run, in_turn
from bench.load.closed_loop import VISION_PATH, at_once, post
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, QuestionMaker
from bench.records import Row
from bench.servers.processes import Server, fake_triton, fastapi_baseline, gateway_before

CLIENTS = 4
_REQUESTS = 300  # a round and side, for processor time is told in hundredths of a second
_WARM_UP_REQUESTS = 20
_BODIES = 12  # different ones
_THREADS = 64

Bodies = tuple[str, list[bytes]]
"""A path, and what is sent there."""


def measure(run: Run) -> list[Row]:
    """A row for text alone and one for photos; answers are one token that comes at once."""
    build, rows = run.build(THIN), []
    with (
        fake_triton(0.0) as triton,
        gateway_before(build, triton, _THREADS) as gateway,
        fastapi_baseline(build, triton) as baseline,
    ):
        for name, (ours, theirs) in _bodies(QuestionMaker(Preparer(build).tokenizer, seed=11)).items():
            _send(gateway, ours, _WARM_UP_REQUESTS)
            _send(baseline, theirs, _WARM_UP_REQUESTS)

            def one_round(number: int, ours: Bodies = ours, theirs: Bodies = theirs) -> dict[str, float]:
                second, first = in_turn(
                    number, lambda: _per_core_s(baseline, theirs), lambda: _per_core_s(gateway, ours)
                )
                return {"requests_per_core_s": first, "rival_requests_per_core_s": second, "ratio": first / second}

            spreads = run.spreads(name, one_round)
            rows.append({"asked": name, **spreads, "clients": CLIENTS, "requests": _REQUESTS, **run.row()})
    return rows


def _bodies(maker: QuestionMaker) -> dict[str, tuple[Bodies, Bodies]]:
    """What each side is sent for each kind of question: the same, but text alone has a path of its own in the
    gateway."""
    texts = [maker.prompt(52) for _ in range(_BODIES)]
    photos = VISION_PATH, _encoded([maker.question(PHOTO).body(1) for _ in range(_BODIES)])
    chats = [{"messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0} for text in texts]
    plain = [{"prompt": text, "max_tokens": 1} for text in texts]
    return {
        "text": (("/v1/chat/completions", _encoded(chats)), (VISION_PATH, _encoded(plain))),
        "photo": (photos, photos),
    }


def _encoded(bodies: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(body).encode() for body in bodies]


def _per_core_s(server: Server, bodies: Bodies) -> float:
    """Requests for each second of the server's processor time."""
    before_s = server.cpu_s()
    _send(server, bodies, _REQUESTS)
    return _REQUESTS / (server.cpu_s() - before_s)


def _send(server: Server, bodies: Bodies, count: int) -> None:
    path, texts = bodies
    requests = [texts[index % len(texts)] for index in range(count)]
    statuses = at_once(lambda body: post(server.url + path, body), requests, CLIENTS)
    if set(statuses) != {200}:
        raise RuntimeError(f"{server.url}{path} answered with {sorted(set(statuses))}.")
