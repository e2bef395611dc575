"""Clients as a service has them: each sends one question after another over HTTP and waits for its answers."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.load.prompts import Question

NEW_TOKENS = 64
_ANSWER_TIMEOUT_S = 600.0
_EVENT = b"data: "
_Task = TypeVar("_Task")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    """What came back; `first_token_s` is 0 where neither a stream nor the server's own word tells."""

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
    request = urllib.request.Request(f"{url}/v1/chat/vision", body, {"Content-Type": "application/json"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_S) as reply:
        if reply.headers.get_content_type() == "text/event-stream":
            values, first_token_s = _read_events(reply, began)
        else:
            values = json.load(reply)
            first_token_s = values.get("timings", {}).get("first_token_s", 0.0)  # the rival's word
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
        return list(pool.map(work, tasks, timeout=_ANSWER_TIMEOUT_S))


def _read_events(lines: Iterable[bytes], began: float) -> tuple[dict[str, Any], float]:
    """The last event, which holds the whole answer, and the seconds until the first piece of it."""
    first_token_s = 0.0
    values: dict[str, Any] = {}
    for line in lines:
        if line.startswith(_EVENT):
            values = json.loads(line[len(_EVENT) :])
            if "delta" in values and not first_token_s:
                first_token_s = time.perf_counter() - began
    return values, first_token_s
