"""A crowd as services have them: connections kept or closed, streams, clients who leave. Who stays is answered right.

What goes wrong once in a thousand requests (one connection taken for another, a head behind its words) is found in such
crowds, or by users.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import ANSWER_S, Service, png

from demo.golden_set import MOST_TOKENS, GoldenQuestion, drawn_image, golden_questions, plain

pytestmark = pytest.mark.triton
CLIENTS = 16
CROWD_S, MORE_S = 12.0, 60.0
ANSWERS_EACH = 10
LEAVES, STREAMS, CLOSES = 0.15, 0.6, 0.3
"""How often a client leaves before its answer is complete, asks for a stream, and closes its connection."""
FIRST_BYTES = 60
QUESTIONS = [question for question in golden_questions() if question.has_image and "<think>" not in question.answer]


class Client:
    """Asks one question after another on its own connections."""

    def __init__(self, url: str, seed: int) -> None:
        self._place = url.removeprefix("http://")
        self._chance = random.Random(seed)
        self._connection: http.client.HTTPConnection | None = None
        self.seen: Counter[str] = Counter()

    def run(self, until: float) -> Counter[str]:
        while time.monotonic() < until or self._has_few_answers(until):
            self.seen[self._ask(self._chance.choice(QUESTIONS))] += 1
        self._close()
        return self.seen

    def _has_few_answers(self, until: float) -> bool:
        """Whether a slow machine is to be given more time."""
        return self.seen["right"] <= ANSWERS_EACH and time.monotonic() < until + MORE_S

    def _ask(self, question: GoldenQuestion) -> str:
        is_stream = self._chance.random() < STREAMS
        connection = self._connection = self._connection or http.client.HTTPConnection(self._place, timeout=ANSWER_S)
        connection.request(
            "POST", "/v1/chat/vision", body_of(question, is_stream), {"Content-Type": "application/json"}
        )
        if self._chance.random() < LEAVES:
            time.sleep(self._chance.random() / 10)
            if is_stream and self._chance.random() < 0.5:
                connection.getresponse().read(FIRST_BYTES)
            self._close()
            return "left"
        reply = connection.getresponse()
        said = reply.read()
        if self._chance.random() < CLOSES:
            self._close()
        if reply.status != 200:
            return f"{reply.status}: {said[:200]!r}"
        result = result_of(said, is_stream)
        return "right" if result == plain(question.answer) else f"{question.id}: {result}"

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def body_of(question: GoldenQuestion, is_stream: bool) -> bytes:
    image = base64.b64encode(png(drawn_image(question.seed))).decode()
    asked = {"image": image, "prompt": question.question, "thinking": question.thinking}
    return json.dumps(asked | {"temperature": 0, "max_tokens": MOST_TOKENS, "stream": is_stream}).encode()


def result_of(said: bytes, is_stream: bool) -> str:
    """The answer, whose pieces must add up to it."""
    if not is_stream:
        return str(json.loads(said)["result"])
    events: list[dict[str, Any]] = [
        json.loads(line[6:]) for line in said.decode().split("\n\n") if line.startswith("data: ")
    ]
    result = str(events[-1].get("result", events[-1]))
    pieces = "".join(event.get("delta", "") for event in events)
    return result if pieces == result else f"{pieces} and not {result}"


def test_whoever_stays_is_answered_right(service: Service) -> None:
    until = time.monotonic() + CROWD_S
    clients = [Client(service.gateway.url, seed) for seed in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = sum(pool.map(lambda client: client.run(until), clients), Counter[str]())
    assert set(seen) == {"right", "left"}, seen
    assert seen["right"] > ANSWERS_EACH * CLIENTS
