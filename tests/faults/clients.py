"""Clients of a running service, who ask questions with known answers and record all that they see."""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from history import Ended, Event, How, PieceCame, Sent
from serving import png

from demo.golden_set import MOST_TOKENS, GoldenQuestion, drawn_image, golden_questions, plain

VISION, OPENAI = "/v1/chat/vision", "/v1/chat/completions"
_TIMEOUT_S = 60.0
_SPLIT = "\x1f"
"""Stands in a recorded text between thoughts and answer."""


@dataclass
class Recorder:
    """The history that clients write together; `now_s` is its clock."""

    events: list[Event] = field(default_factory=list)  # appending is atomic

    @staticmethod
    def now_s() -> float:
        return time.monotonic()


@dataclass(frozen=True)
class Habits:
    """How often a client asks for a stream, closes its connection, leaves early, and takes OpenAI's route."""

    streams: float = 0.6
    closes: float = 0.3
    leaves: float = 0.12
    openai: float = 0.3
    pause_s: float = 0.2


class Client:
    """Asks one question after another until told to stop; one thread."""

    def __init__(self, name: str, url: str, recorder: Recorder, seed: int, habits: Habits | None = None) -> None:
        self.name, self._place = name, urlsplit(url).netloc
        self._recorder = recorder
        self._chance = random.Random(f"{name} {seed}")
        self._habits = habits or Habits()
        self._connection: http.client.HTTPConnection | None = None
        self._asked = 0

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._chance.random() * 2 * self._habits.pause_s):
            self.ask(self._chance.choice(questions()))
        self.close()

    def ask(
        self, question: GoldenQuestion, is_stream: bool | None = None, leaves: bool | None = None
    ) -> Sequence[Event]:
        """Asks once; what came of it, which is recorded too."""
        chance, habits = self._chance, self._habits
        is_stream = chance.random() < habits.streams if is_stream is None else is_stream
        leaves = chance.random() < habits.leaves if leaves is None else leaves
        by_openai = not question.has_image or chance.random() < habits.openai
        self._asked += 1
        exchange = _Exchange(f"{self.name}-{self._asked}", self._recorder, question)
        body = body_of(question, is_stream, by_openai)
        exchange.sent(self.name)
        headers = {"Content-Type": "application/json", "X-Request-ID": exchange.request_id}
        try:
            reply = self._post(OPENAI if by_openai else VISION, body, headers, waits=is_stream or not leaves)
            if reply is None:
                exchange.ended(How.LEFT)
            else:
                exchange.read(reply, by_openai, chance.randint(1, 8) if leaves else None)
        except (OSError, http.client.HTTPException):
            exchange.ended(How.BROKEN)
        if exchange.events[-1].how is not How.DONE or chance.random() < habits.closes:  # type: ignore[union-attr]
            self.close()
        return exchange.events

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, path: str, body: bytes, headers: dict[str, str], waits: bool) -> http.client.HTTPResponse | None:
        """The head of the answer; None when the client leaves instead of waiting for it.

        A kept connection may have been closed meanwhile. Then, as any client's library does, it asks on a new one.
        """
        is_kept, self._connection = self._connection is not None, self._connection or self._new()
        try:
            self._connection.request("POST", path, body, headers)
            if not waits:
                time.sleep(self._chance.choice((0.0, self._chance.random() / 2)))
                return None
            return self._connection.getresponse()
        except ConnectionError:  # also RemoteDisconnected: no byte came
            if not is_kept:
                raise
        self.close()
        return self._post(path, body, headers, waits)

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._place, timeout=_TIMEOUT_S)


class _Exchange:
    """One request and what came of it."""

    def __init__(self, request_id: str, recorder: Recorder, question: GoldenQuestion) -> None:
        self.request_id, self._recorder, self._question = request_id, recorder, question
        self._thinks = bool(thoughts_in(question))
        self._has_split = False
        self.events: list[Event] = []

    def sent(self, client: str) -> None:
        self._record(Sent(self._recorder.now_s(), self.request_id, client, self._question.id, known(self._question)))

    def ended(self, how: How, **more: Any) -> None:
        self._record(Ended(self._recorder.now_s(), self.request_id, how, **more))

    def read(self, reply: http.client.HTTPResponse, by_openai: bool, most_events: int | None) -> None:
        """Reads an answer to its end, or leaves after `most_events`."""
        head = {"status": reply.status, "echoed_id": reply.headers.get("X-Request-ID")}
        if reply.status != 200:
            values = _json(reply.read())
            error = values.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            self.ended(How.STATUS, code=code, retry_after=reply.headers.get("Retry-After"), **head)
        elif reply.headers.get_content_type() != "text/event-stream":
            values = json.loads(reply.read())
            self.ended(How.DONE, text=self._whole(values), **(head | _id_in(values)))
        else:
            self._read_stream(reply, head, by_openai, most_events)

    def _read_stream(
        self, reply: http.client.HTTPResponse, head: dict[str, Any], by_openai: bool, most_events: int | None
    ) -> None:
        said, has_ended, has_failed = "", False, False
        for number, data in enumerate(_data_lines(reply)):
            if most_events is not None and number >= most_events and not has_ended:
                self.ended(How.LEFT, **head)
                return
            if data == "[DONE]":
                if by_openai and has_failed:
                    has_failed = False  # it closes a stream that failed, once
                    continue
                self.ended(How.DONE, text=said, **head)
                has_ended = True
                continue
            values = _json(data.encode())
            if "error" in values:
                error = values["error"]
                self.ended(How.ERROR, code=error.get("code") if isinstance(error, dict) else None, **head)
                has_ended = has_failed = True
            elif "result" in values:
                self.ended(How.DONE, text=self._whole(values), **(head | _id_in(values)))
                has_ended = True
            else:
                said += self._piece(values, by_openai)
        if not has_ended:
            self.ended(How.BROKEN, **head)

    def _piece(self, values: dict[str, Any], by_openai: bool) -> str:
        delta = (values.get("choices") or [{}])[0].get("delta", {}) if by_openai else values
        text = str(delta.get("reasoning_content" if by_openai else "thinking") or "")
        content = str(delta.get("content" if by_openai else "delta") or "")
        if content and self._thinks and not self._has_split:
            self._has_split = True
            text += _SPLIT
        text += content
        if text:
            self._record(PieceCame(self._recorder.now_s(), self.request_id, text))
        return text

    def _whole(self, values: dict[str, Any]) -> str:
        if "choices" in values:
            message = values["choices"][0]["message"]
            thoughts, content = message.get("reasoning_content"), message["content"]
        else:
            thoughts, content = values.get("thinking"), values["result"]
        return f"{thoughts}{_SPLIT}{content}" if thoughts else str(content)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._recorder.events.append(event)


@cache
def questions() -> tuple[GoldenQuestion, ...]:
    """Those whose greedy answers are known, greetings without an image too."""
    return tuple(golden_questions())


def thoughts_in(question: GoldenQuestion) -> str:
    """What the answer's thinking says, or nothing."""
    before, mark, _ = question.answer.partition("</think>")
    return before.replace("<think>", "").strip() if mark else ""


def known(question: GoldenQuestion) -> str:
    """The text that a service must give."""
    thoughts = thoughts_in(question)
    return f"{thoughts}{_SPLIT}{plain(question.answer)}" if thoughts else plain(question.answer)


def body_of(question: GoldenQuestion, is_stream: bool, by_openai: bool) -> bytes:
    values: dict[str, Any] = {"temperature": 0, "max_tokens": MOST_TOKENS, "stream": is_stream}
    values["thinking"] = question.thinking
    if not by_openai:
        return json.dumps(values | {"image": _image(question.seed), "prompt": question.question}).encode()
    text = {"type": "text", "text": question.question}
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_image(question.seed)}"}}
    content = [image, text] if question.has_image else question.question
    return json.dumps(values | {"messages": [{"role": "user", "content": content}]}).encode()


@cache
def _image(seed: int) -> str:
    return base64.b64encode(png(drawn_image(seed))).decode()


def _data_lines(reply: http.client.HTTPResponse) -> Iterator[str]:
    """The data of each event; the end of a connection that broke is an end like any other."""
    with suppress(OSError, http.client.HTTPException):
        while line := reply.readline():
            if line.startswith(b"data: ") and line.endswith(b"\n"):
                yield line[6:].decode().strip("\r\n")


def _json(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _id_in(values: dict[str, Any]) -> dict[str, Any]:
    """The id in a body, which counts for more than the one in the head."""
    found = values.get("request_id") or str(values.get("id", "")).removeprefix("chatcmpl-")
    return {"echoed_id": found} if found else {}
