"""A steady load over HTTP: clients that send one request after another until they are stopped, every ending on
record."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from bench.load.closed_loop import VISION_PATH, events
from bench.load.prompts import Question

_TIMEOUT_S = 60.0
SHORT = (6, 14)
LONG = (20, 40)
"""The fewest and the most tokens of an answer: answers must not end in step."""
NextBody = Callable[[int, random.Random], bytes]
"""Makes a client's next request body from the client's number and its random numbers."""


@dataclass(frozen=True)
class Ending:
    """How one request ended: `done`, its status, `error event`, or `cut` where the connection broke.

    `tokens` counts those of a complete answer, `words` the pieces and `errors` the error events of a stream; `letter`
    is the first letter of the answer.
    """

    began: float
    ended: float
    how: str
    tokens: int = 0
    words: int = 0
    errors: int = 0
    letter: str = ""

    @property
    def is_lost(self) -> bool:
        """It failed before anything of it was streamed, or its stream did not end with exactly one error event."""
        return self.how != "done" and (self.words == 0 or self.how != "error event" or self.errors != 1)


class SteadyLoad:
    """Clients on threads of their own."""

    def __init__(self, url: str, clients: int, next_body: NextBody) -> None:
        self._place = urlsplit(url).netloc
        self._next_body = next_body
        self._endings: list[Ending] = []  # appending is atomic
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets every client finish its request."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    @property
    def endings(self) -> list[Ending]:
        """Those so far, in the order of their ends."""
        return list(self._endings)

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Until so many requests have ended; raises TimeoutError."""
        give_up = time.monotonic() + timeout_s
        while len(self._endings) < count:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{len(self._endings)} of {count} requests have ended")
            time.sleep(0.02)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        while not self._stopping.is_set():
            self._endings.append(self._send(self._next_body(number, chance)))

    def _send(self, body: bytes) -> Ending:
        began = time.monotonic()
        with closing(http.client.HTTPConnection(self._place, timeout=_TIMEOUT_S)) as connection:
            try:
                connection.request("POST", VISION_PATH, body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                if reply.status != 200:
                    reply.read()
                    return Ending(began, time.monotonic(), str(reply.status))
                if reply.headers.get_content_type() == "text/event-stream":
                    return _streamed(began, reply)
                values = json.load(reply)
            except (OSError, http.client.HTTPException, ValueError):
                return Ending(began, time.monotonic(), "cut")
        tokens = values["usage"]["completion_tokens"]
        return Ending(began, time.monotonic(), "done", tokens, letter=values["result"][:1])


@contextmanager
def steady_load(url: str, question: Question, clients: int, tokens: tuple[int, int] = SHORT) -> Generator[SteadyLoad]:
    """Clients that ask this question, every second one for streams, until the block ends."""

    def next_body(number: int, chance: random.Random) -> bytes:
        return json.dumps(question.body(chance.randint(*tokens)) | {"stream": bool(number % 2)}).encode()

    with running(SteadyLoad(url, clients, next_body)) as load:
        yield load


@contextmanager
def running(load: SteadyLoad) -> Generator[SteadyLoad]:
    """A load that starts now and ends with the block."""
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


def _streamed(began: float, reply: http.client.HTTPResponse) -> Ending:
    """The end of a stream; where the connection broke, the events that came until then."""
    came: list[dict[str, Any]] = []
    with suppress(OSError, http.client.HTTPException, ValueError):
        for event in events(reply):
            came.append(event)
    words = [event["delta"] for event in came if "delta" in event]
    errors = sum("error" in event for event in came)
    last = came[-1] if came else {}
    how = "done" if "result" in last else "error event" if errors else "cut"
    tokens = last["usage"]["completion_tokens"] if how == "done" else 0
    return Ending(began, time.monotonic(), how, tokens, len(words), errors, "".join(words)[:1])
