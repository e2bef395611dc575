"""The closed loop: clients that each send one request after another over HTTP and wait for its answer."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bench.load.prompts import Question

NEW_TOKENS = 64
VISION_PATH = "/v1/chat/vision"
_TIMEOUT_S, _POST_TIMEOUT_S = 600.0, 60.0
_EVENT = b"data: "
_Task = TypeVar("_Task")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    """One answer; `first_token_s` is 0 where the answer is no stream and the server does not tell it."""

    text: str
    tokens: int
    seconds: float
    first_token_s: float


@dataclass(frozen=True)
class Round:
    """The answers to some questions, in their order, and the seconds from the first byte sent to the last read."""

    answers: list[Answer]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(answer.tokens for answer in self.answers) / self.seconds


def ask(url: str, question: Question, max_tokens: int = NEW_TOKENS, stream: bool = False) -> Answer:
    """One question over HTTP; raises HTTPError for anything but a 200."""
    body = json.dumps(question.body(max_tokens) | ({"stream": True} if stream else {})).encode()
    request = urllib.request.Request(url + VISION_PATH, body, {"Content-Type": "application/json"})
    began = time.perf_counter()
    first_token_s, values = 0.0, {}
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
        if reply.headers.get_content_type() == "text/event-stream":
            for values in events(reply):  # the last event holds the whole answer
                if "delta" in values and not first_token_s:
                    first_token_s = time.perf_counter() - began
        else:
            values = json.load(reply)
            first_token_s = values.get("timings", {}).get("first_token_s", 0.0)  # the baseline tells it
    seconds = time.perf_counter() - began
    return Answer(values["result"], values["usage"]["completion_tokens"], seconds, first_token_s)


def run_round(url: str, questions: Sequence[Question], clients: int) -> Round:
    """All questions, from this many clients at once."""
    began = time.perf_counter()
    answers = at_once(lambda question: ask(url, question), questions, clients)
    return Round(answers, time.perf_counter() - began)


def at_once(work: Callable[[_Task], _T], tasks: Sequence[_Task], clients: int) -> list[_T]:
    """`work` done for each task by this many threads; the results in the tasks' order."""
    with ThreadPoolExecutor(clients, thread_name_prefix="client") as pool:
        return list(pool.map(work, tasks, timeout=_TIMEOUT_S))


def post(url: str, body: bytes) -> int:
    """The status of one POST on a connection of its own; the response is read to its end."""
    place = urlsplit(url)
    with closing(http.client.HTTPConnection(place.netloc, timeout=_POST_TIMEOUT_S)) as connection:
        connection.request("POST", place.path, body, {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        response.read()
        return response.status


def events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The events of a stream, without its comments."""
    for line in lines:
        if line.startswith(_EVENT):
            yield json.loads(line[len(_EVENT) :])
