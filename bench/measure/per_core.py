"""Requests a second that one core carries: our gateway beside the least that FastAPI and uvicorn need, in turn."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import THIN
from bench.load.closed_loop import at_once
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Asker
from bench.records import Row, Spread
from bench.servers.gateways import Server, gateway_before, paced_triton, passthrough_before

CLIENTS = 4
_REQUESTS = 300  # a round and side, for processor time is told in hundredths of a second
_PHOTOS = 12  # different ones
_THREADS = 64
_TIMEOUT_S = 60.0

Say = Callable[[str], None]
Body = tuple[str, bytes]
"""An address's path, and what is sent there."""


def measure(rounds: int, say: Say) -> list[Row]:
    """A row for text alone and one for photos; answers are one token that comes at once."""
    build = build_of(checkpoint_of(THIN, say), FP32, say)
    rows = []
    with (
        paced_triton(0.0) as triton,
        gateway_before(build, triton, _THREADS) as ours,
        passthrough_before(build, triton) as rival,
    ):
        for name, questions in _questions(Asker(Preparer(build).tokenizer, seed=11)).items():
            _ask_all(ours, questions["ours"][:20])
            _ask_all(rival, questions["rival"][:20])
            found = [_round(number, ours, rival, questions) for number in range(rounds)]
            mine, theirs = zip(*found, strict=True)
            ratios = Spread.of([ours_s / rival_s for ours_s, rival_s in found])
            say(f"{name}: {ratios.median:.2f} times the requests a second per core")
            rows.append(
                {
                    "asked": name,
                    **Spread.of(mine).fields("requests_per_core_s"),
                    **Spread.of(theirs).fields("rival_requests_per_core_s"),
                    **ratios.fields("ratio"),
                    "clients": CLIENTS,
                    "requests": _REQUESTS,
                    "rounds": rounds,
                    "threads": 0,
                }
            )
    return rows


def _questions(asker: Asker) -> dict[str, dict[str, list[Body]]]:
    """For each kind of question what either side is sent: the same, but text alone has an address of its own here."""
    texts = [asker.prompt(52) for _ in range(_PHOTOS)]
    photos = [asker.question(PHOTO).body(1) for _ in range(_PHOTOS)]
    chats = [{"messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0} for text in texts]
    plain = [{"prompt": text, "max_tokens": 1} for text in texts]
    return {
        "text": {"ours": _bodies("/v1/chat/completions", chats), "rival": _bodies("/v1/chat/vision", plain)},
        "photo": {"ours": _bodies("/v1/chat/vision", photos), "rival": _bodies("/v1/chat/vision", photos)},
    }


def _bodies(path: str, bodies: list[dict[str, Any]]) -> list[Body]:
    return [(path, json.dumps(bodies[i % len(bodies)]).encode()) for i in range(_REQUESTS)]


def _round(number: int, ours: Server, rival: Server, questions: dict[str, list[Body]]) -> tuple[float, float]:
    """Requests a second of processor time on either side; who goes first changes."""
    sides = [(ours, questions["ours"]), (rival, questions["rival"])]
    found = [_per_core_s(*side) for side in (sides if number % 2 else reversed(sides))]
    return (found[0], found[1]) if number % 2 else (found[1], found[0])


def _per_core_s(server: Server, bodies: list[Body]) -> float:
    before_s = server.cpu_s()
    _ask_all(server, bodies)
    return len(bodies) / (server.cpu_s() - before_s)


def _ask_all(server: Server, bodies: list[Body]) -> None:
    at_once(lambda body: _ask(server, body), bodies, CLIENTS)


def _ask(server: Server, body: Body) -> None:
    request = urllib.request.Request(server.url + body[0], body[1], {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
        reply.read()
