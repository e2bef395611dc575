"""Measures what costly requests of others do to a key's text: `python tests/faults/fairness.py BUILD [ONLY...]`.

For each kind, or those whose name contains one of ONLY: sixteen keys send it again and again to a gateway with one
worker before a Triton that computes nothing, and another key's first token is timed, beside the same without them.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from costly_bodies import CHAT, KINDS  # noqa: E402
from live_gateway import REAL, running_gateway  # noqa: E402

from bench.servers.processes import fake_triton  # noqa: E402
from gateway.limits.api_keys import create_key  # noqa: E402
from launcher.supervision.vital_signs import children_of  # noqa: E402

ATTACKERS = 16
REQUESTS = 40
_MOST_S = 15.0
_WARM_UP_S = 2.0
_QUESTION = {"messages": [{"role": "user", "content": "What colour is the sky?"}], "max_tokens": 1, "stream": True}
_MANY = "1000000"


@dataclass(frozen=True)
class Waited:
    """Seconds until the first token, of many requests."""

    seconds: Sequence[float]

    def ms(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))] * 1000


def main() -> None:
    build = Path(sys.argv[1])
    only = sys.argv[2:] or [""]
    with tempfile.TemporaryDirectory() as name:
        keys = [create_key(Path(name) / "keys.json", f"key-{i}") for i in range(ATTACKERS + 1)]
        settings = {
            "KEYS_FILE": str(Path(name) / "keys.json"),
            "THREADS": "64",
            "REQUESTS_PER_MINUTE": _MANY,
            "ADDRESS_REQUESTS_PER_MINUTE": _MANY,
            "IMAGE_TOKENS_PER_MINUTE": _MANY,
        }
        with fake_triton(0.0) as port:
            settings["TRITON_URL"] = f"grpc://127.0.0.1:{port}"
            with running_gateway(build, REAL, **settings) as gateway:
                worker = min(children_of(gateway.pid))
                ask(gateway.url, keys[0])
                print("| kind | quiet p50 | p95 | beside p50 | p95 | ratio | worker's peak | they got |", flush=True)
                print("|---|---|---|---|---|---|---|---|", flush=True)
                for kind in (kind for kind in KINDS if any(word in kind for word in only)):
                    print(row(kind, gateway.url, keys, worker), flush=True)


def row(kind: str, url: str, keys: Sequence[str], worker: int) -> str:
    quiet = waited(url, keys[0])
    Path(f"/proc/{worker}/clear_refs").write_text("5", "ascii")
    with Attack(kind, url, keys[1:]) as got:
        time.sleep(_WARM_UP_S)
        beside = waited(url, keys[0])
    peak = next(line for line in Path(f"/proc/{worker}/status").read_text("utf-8").splitlines() if "VmHWM" in line)
    ratio = statistics.median(beside.seconds) / statistics.median(quiet.seconds)
    cells = [kind, *(f"{each.ms(share):.0f} ms" for each in (quiet, beside) for share in (0.5, 0.95))]
    said = ", ".join(f"{count} x {status}" for status, count in sorted(got().items()))
    return f"| {' | '.join(cells)} | {ratio:.1f} | {int(peak.split()[1]) >> 10} MiB | {said} |"


def waited(url: str, key: str) -> Waited:
    found = []
    give_up = time.monotonic() + _MOST_S
    while len(found) < REQUESTS and time.monotonic() < give_up:
        found.append(ask(url, key))
        time.sleep(0.02)
    return Waited(found)


def ask(url: str, key: str) -> float:
    """Seconds until the first token of an answer's stream."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("POST", CHAT, json.dumps(_QUESTION), headers(key) | {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"A question was answered with {reply.status}: {reply.read()!r}")
        reply.read(1)
        took = time.perf_counter() - began
        reply.read()
    return took


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Connection": "close"}


class Attack:
    """Sends requests of one kind from a process of its own until the block ends; gives what tells the statuses."""

    def __init__(self, kind: str, url: str, keys: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop, self._statuses = context.Event(), context.SimpleQueue()
        self._process = context.Process(target=_attack, args=(kind, url, keys, self._stop, self._statuses))
        self._counted: Counter[str] = Counter()

    def __enter__(self) -> object:
        self._process.start()
        assert self._statuses.get() == "started"
        return lambda: self._counted

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._process.is_alive() or not self._statuses.empty():
            if not self._statuses.empty():
                self._counted[self._statuses.get()] += 1
            else:
                time.sleep(0.01)
        self._process.join()


def _attack(kind: str, url: str, keys: Sequence[str], stop: object, statuses: object) -> None:
    made = KINDS[kind]()
    os.nice(5)  # they would have machines of their own

    def again(key: str) -> None:
        while not stop.is_set():  # type: ignore[attr-defined]
            statuses.put(_sent(made, url, key))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=again, args=(key,)) for key in keys]
    statuses.put("started")  # type: ignore[attr-defined]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _sent(made: object, url: str, key: str) -> str:
    try:
        with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
            connection.request("POST", made.path, made.body, headers(key) | made.headers)  # type: ignore[attr-defined]
            reply = connection.getresponse()
            reply.read()
            return str(reply.status)
    except (OSError, http.client.HTTPException):
        return "broken"


if __name__ == "__main__":
    main()
