"""A steady load over HTTP: clients that send one request after another until they are stopped."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

from bench.load.closed_loop import VISION_PATH, Reply, send
from bench.load.prompts import Question

_STOP_S = 60.0
SHORT = (6, 14)
LONG = (20, 40)
"""The fewest and the most tokens of an answer: answers must not end in step."""
NextBody = Callable[[int, random.Random], bytes]
"""Makes a client's next request body from the client's number and its random numbers."""


class SteadyLoad:
    """Clients on threads of their own, for as long as a `with` block takes; at its end each finishes its request."""

    def __init__(self, url: str, clients: int, next_body: NextBody) -> None:
        self._url = url + VISION_PATH
        self._next_body = next_body
        self._endings: list[Reply] = []  # appending is atomic
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_S)

    @property
    def endings(self) -> list[Reply]:
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
            self._endings.append(send(self._url, self._next_body(number, chance)))


def steady_load(url: str, question: Question, clients: int, tokens: tuple[int, int] = SHORT) -> SteadyLoad:
    """Clients that ask this question, every second one for streams."""

    def next_body(number: int, chance: random.Random) -> bytes:
        return question.body(chance.randint(*tokens), stream=bool(number % 2))

    return SteadyLoad(url, clients, next_body)


def tally(endings: Sequence[Reply]) -> Counter[str]:
    return Counter(ending.how for ending in endings)


def longest_silence_s(endings: Sequence[Reply], since: float, until: float) -> float:
    """The longest time within [since, until] in which no request was answered."""
    answered = sorted(ending.ended for ending in endings if ending.how == "done" and since < ending.ended < until)
    return max(after - before for before, after in pairwise([since, *answered, until]))
