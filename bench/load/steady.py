"""A steady load over HTTP, every ending on record: clients that ask one thing after another until they are stopped."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from bench.load.prompts import Question

_TIMEOUT_S = 60.0
_EVENT = b"data: "
SHORT = (6, 14)
LONG = (20, 40)
"""Tokens of an answer, at least and at most: answers must not end in step."""


@dataclass(frozen=True)
class Ending:
    """How one request ended: `done`, or the status, `error event` or `cut` (the connection) that it ended with.

    `tokens` counts those of a complete answer, `words` the pieces and `errors` the error events of a stream; `letter`
    is the first that the model said.
    """

    is_stream: bool
    began: float
    ended: float
    how: str
    tokens: int = 0
    words: int = 0
    errors: int = 0
    letter: str = ""

    @property
    def is_lost(self) -> bool:
        """It failed although nothing of it had been streamed, or its stream did not end with one error event."""
        if self.how == "done":
            return False
        return not self.is_stream or self.words == 0 or self.how != "error event" or self.errors != 1


class SteadyLoad:
    """Clients on threads of their own; every second one asks for streams."""

    def __init__(self, url: str, question: Question, clients: int, tokens: tuple[int, int] = SHORT) -> None:
        self._place = urlsplit(url).netloc
        self._question = question
        self._tokens = tokens
        self._lock = threading.Lock()
        self._endings: list[Ending] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(bool(number % 2), random.Random(number)), daemon=True)
            for number in range(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets every client finish what it has asked."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    @property
    def endings(self) -> list[Ending]:
        """Those so far, in the order of their ends."""
        with self._lock:
            return list(self._endings)

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Until so many requests have ended; raises TimeoutError."""
        give_up = time.monotonic() + timeout_s
        while len(self._endings) < count:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{len(self._endings)} of {count} requests have ended")
            time.sleep(0.02)

    def _run(self, is_stream: bool, chance: random.Random) -> None:
        while not self._stopping.is_set():
            ending = self._ask(is_stream, chance.randint(*self._tokens))
            with self._lock:
                self._endings.append(ending)

    def _ask(self, is_stream: bool, max_tokens: int) -> Ending:
        data = json.dumps(self._question.body(max_tokens) | {"stream": is_stream}).encode()
        connection = http.client.HTTPConnection(self._place, timeout=_TIMEOUT_S)
        began = time.monotonic()
        try:
            connection.request("POST", "/v1/chat/vision", data, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            if is_stream and reply.status == 200:
                return _streamed(began, _events(reply))
            return _whole(is_stream, began, reply.status, reply.read())
        except (OSError, http.client.HTTPException, ValueError):
            return Ending(is_stream, began, time.monotonic(), "cut")
        finally:
            connection.close()


@contextmanager
def steady_load(url: str, question: Question, clients: int, tokens: tuple[int, int] = SHORT) -> Generator[SteadyLoad]:
    """A load that has begun, and ends with the block."""
    load = SteadyLoad(url, question, clients, tokens)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def tally(endings: Sequence[Ending]) -> Counter[str]:
    return Counter(ending.how for ending in endings)


def longest_silence_s(endings: Sequence[Ending], since: float, until: float) -> float:
    """The longest time within [since, until] in which no request was answered."""
    moments = [since, *sorted(e.ended for e in endings if e.how == "done" and since < e.ended < until), until]
    return max(after - before for before, after in pairwise(moments))


def _events(reply: http.client.HTTPResponse) -> list[dict[str, Any]]:
    """Every event of a stream; those that came, where the connection was cut."""
    events: list[dict[str, Any]] = []
    try:
        for line in reply:
            if line.startswith(_EVENT):
                events.append(json.loads(line[len(_EVENT) :]))
    except (OSError, http.client.HTTPException, ValueError):
        pass
    return events


def _whole(is_stream: bool, began: float, status: int, body: bytes) -> Ending:
    if status != 200:
        return Ending(is_stream, began, time.monotonic(), str(status))
    values = json.loads(body)
    tokens = values["usage"]["completion_tokens"]
    return Ending(is_stream, began, time.monotonic(), "done", tokens, letter=values["result"][:1])


def _streamed(began: float, events: list[dict[str, Any]]) -> Ending:
    words = [event["delta"] for event in events if "delta" in event]
    errors = sum("error" in event for event in events)
    last = events[-1] if events else {}
    how = "done" if "result" in last else "error event" if errors else "cut"
    tokens = last["usage"]["completion_tokens"] if how == "done" else 0
    return Ending(True, began, time.monotonic(), how, tokens, len(words), errors, "".join(words)[:1])
