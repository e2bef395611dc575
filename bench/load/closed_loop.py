"""Requests over HTTP, one at a time or by the closed loop, whose clients wait for an answer before they ask again."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.load.posted import ANSWER_S, posted
from bench.load.prompts import Question

NEW_TOKENS = 64
VISION_PATH = "/v1/chat/vision"
_Task = TypeVar("_Task")
_T = TypeVar("_T")


@dataclass
class Reply:
    """What came back for one request: its events, or the one document. `status` stays 0 without a response."""

    began: float
    events: list[dict[str, Any]]
    status: int = 0
    ended: float = 0.0
    first_token_s: float = 0.0
    """0 where the answer is no stream and the server does not tell it."""

    @property
    def last(self) -> dict[str, Any]:
        """The last event of a stream holds the whole answer, as a document does."""
        return self.events[-1] if self.events else {}

    @property
    def how(self) -> str:
        """How the request ended: `done`, its status, `error event`, or `cut` where the connection broke."""
        if self.status not in (0, 200):
            return str(self.status)
        if "result" in self.last:
            return "done"
        return "error event" if self._count("error") else "cut"

    @property
    def words(self) -> int:
        """The pieces of a stream."""
        return self._count("delta")

    @property
    def is_lost(self) -> bool:
        """It failed before anything of it was streamed, or its stream did not end with exactly one error event."""
        return self.how != "done" and (self.words == 0 or self.how != "error event" or self._count("error") != 1)

    @property
    def text(self) -> str:
        return str(self.last.get("result", ""))

    @property
    def tokens(self) -> int:
        return int(self.last["usage"]["completion_tokens"])

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def _count(self, kind: str) -> int:
        return sum(kind in event for event in self.events)


@dataclass(frozen=True)
class Round:
    """The answers to some questions, in their order, and the seconds from the first byte sent to the last read."""

    answers: list[Reply]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(answer.tokens for answer in self.answers) / self.seconds


def send(url: str, body: bytes) -> Reply:
    """One POST on a connection of its own; where it breaks, what came until then counts."""
    reply = Reply(time.monotonic(), [])
    with suppress(OSError, http.client.HTTPException, ValueError), posted(url, body) as answered:
        reply.status = answered.status
        for event in answered:
            reply.events.append(event)
            if "delta" in event and not reply.first_token_s:
                reply.first_token_s = time.monotonic() - reply.began
        if not answered.is_stream:
            reply.first_token_s = reply.last.get("timings", {}).get("first_token_s", 0.0)  # the baseline's
    reply.ended = time.monotonic()
    return reply


def ask(url: str, question: Question, max_tokens: int = NEW_TOKENS, stream: bool = False) -> Reply:
    """The whole answer to one question; raises RuntimeError for anything else."""
    reply = send(url + VISION_PATH, question.body(max_tokens, stream))
    if reply.how != "done":
        raise RuntimeError(f"{url} gave no whole answer: {reply.how}.")
    return reply


def expect(url: str, body: bytes, status: int = 200) -> Reply:
    """A reply of this status; raises RuntimeError for another."""
    reply = send(url, body)
    if reply.status != status:
        raise RuntimeError(f"{url} answered with {reply.status}.")
    return reply


def run_round(url: str, questions: Sequence[Question], clients: int) -> Round:
    """All questions, from this many clients at once."""
    began = time.monotonic()
    answers = at_once(lambda question: ask(url, question), questions, clients)
    return Round(answers, time.monotonic() - began)


def at_once(work: Callable[[_Task], _T], tasks: Sequence[_Task], clients: int) -> list[_T]:
    """`work` done for each task by this many threads; the results in the tasks' order."""
    with ThreadPoolExecutor(clients, thread_name_prefix="client") as pool:
        return list(pool.map(work, tasks, timeout=ANSWER_S))
