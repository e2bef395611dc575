"""How fast a wrong request is refused while others have large photos decoded."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np

from bench.checkpoints.builds import FP32, build_of
from bench.checkpoints.synthetic import DEMO
from bench.load.in_process import Preparer
from bench.load.prompts import Asker
from bench.records import Row, Spread
from bench.servers.gateways import Server, gateway_before, paced_triton

PHOTO = (4000, 3000)
SENDERS = 4
_PATH = "/v1/chat/vision"
_WRONG = b'{"prompt": "Where is the picture?"}'
_REFUSALS = 200
_PAUSE_S = 0.02
_THREADS = 64
_TIMEOUT_S = 30.0

Say = Callable[[str], None]


def measure(rounds: int, say: Say) -> list[Row]:
    """One row: milliseconds from connecting to having read the refusal, alone and beside the senders."""
    build = build_of(DEMO, FP32, say)
    photo = json.dumps(Asker(Preparer(build).tokenizer, seed=17).question(PHOTO).body(max_tokens=1)).encode()
    found: dict[str, list[float]] = {"alone_p50": [], "p50": [], "p95": []}
    with paced_triton(0.0) as triton, gateway_before(build, triton, _THREADS) as gateway:
        for number in range(rounds):
            found["alone_p50"].append(float(np.median(_refusals_ms(gateway))))
            with _senders(gateway, photo):
                taken_ms = _refusals_ms(gateway)
            found["p50"].append(float(np.percentile(taken_ms, 50)))
            found["p95"].append(float(np.percentile(taken_ms, 95)))
            last = ", ".join(f"{name} {values[-1]:.1f} ms" for name, values in found.items())
            say(f"Refusals, round {number + 1} of {rounds}: {last}")
    spreads = [Spread.of(values).fields(f"{name}_ms") for name, values in found.items()]
    return [{"senders": SENDERS, **spreads[0], **spreads[1], **spreads[2], "rounds": rounds, "threads": 0}]


def _refusals_ms(gateway: Server) -> list[float]:
    taken = []
    for _ in range(_REFUSALS):
        began = time.perf_counter()
        status = _post(gateway, _WRONG)
        taken.append(1000 * (time.perf_counter() - began))
        if status != http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"A wrong request was answered with {status}.")
        time.sleep(_PAUSE_S)
    return taken


@contextmanager
def _senders(gateway: Server, photo: bytes) -> Iterator[None]:
    """Clients that send the photo again and again until the block ends."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            _post(gateway, photo)

    threads = [threading.Thread(target=send, name="sender") for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_TIMEOUT_S)


def _post(gateway: Server, body: bytes) -> int:
    with closing(http.client.HTTPConnection(gateway.host, gateway.port, timeout=_TIMEOUT_S)) as connection:
        connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
