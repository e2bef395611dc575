"""A client of /v1/chat/completions, which every server here has: one question with its image, the answer streamed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.load.prompts import Question

MODEL = "bench"
"""The name under which every side serves the checkpoint."""
_PATH = "/v1/chat/completions"
_TIMEOUT_S = 600.0
_EVENT, _END = b"data: ", b"[DONE]"


class NoAnswer(Exception):
    """A server refused a question, or its stream did not end as it should; the message holds what it said."""


@dataclass(frozen=True)
class Answer:
    """What one question was given; `first_token_s` counts from the request's first byte."""

    text: str
    prompt_tokens: int
    tokens: int
    first_token_s: float


def ask(url: str, question: Question, max_tokens: int) -> Answer:
    """The greedy answer of the server's only model, without thinking. Raises NoAnswer for anything but a whole one."""
    usage: dict[str, int] = {}
    text, first_s = "", 0.0
    began = time.monotonic()
    for event in _events(url, json.dumps(_body(question, max_tokens)).encode()):
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            piece = choice.get("delta", {}).get("content")
            if piece and not first_s:
                first_s = time.monotonic() - began
            text += piece or ""
    if usage.get("completion_tokens") != max_tokens or not first_s:
        raise NoAnswer(f"{url} gave {usage.get('completion_tokens')} of {max_tokens} tokens: {text[:80]!r}")
    return Answer(text.strip(), usage["prompt_tokens"], max_tokens, first_s)


def _body(question: Question, max_tokens: int) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{question.image}"}}
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": question.prompt}]}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }


def _events(url: str, body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event, up to the mark that ends the stream."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)) as connection:
        connection.request("POST", _PATH, body, {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise NoAnswer(f"{url} answered {response.status}: {response.read(2000).decode(errors='replace')}")
        for line in response:
            if line.startswith(_EVENT):
                data = line[len(_EVENT) :].strip()
                if data == _END:
                    return
                yield json.loads(data)
    raise NoAnswer(f"{url} ended its stream without {_END.decode()}.")
