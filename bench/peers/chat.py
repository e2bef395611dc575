"""A client of /v1/chat/completions, which every server here has: one question with its image, the answer streamed."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from bench.load.posted import posted
from bench.load.prompts import Question

MODEL = "bench"
"""The name under which every side serves the checkpoint."""
_PATH = "/v1/chat/completions"


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
    with posted(url + _PATH, json.dumps(_body(question, max_tokens)).encode()) as answered:
        if answered.status != http.client.OK:
            raise NoAnswer(f"{url} answered {answered.status}: {answered.beginning()}")
        for event in answered:
            usage = event.get("usage") or usage
            for choice in event.get("choices", ()):
                piece = choice.get("delta", {}).get("content")
                if piece and not first_s:
                    first_s = time.monotonic() - began
                text += piece or ""
    if not answered.is_whole:
        raise NoAnswer(f"{url} ended its stream without [DONE].")
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
