"""The questions that the service is asked, and whether each ended as promised."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.load.posted import posted
from bench.load.prompts import PHOTO, QuestionMaker
from bench.records import Row, rounded
from glmserve.model.tokenizer import Tokenizer

CHAT, VISION = "/v1/chat/completions", "/v1/chat/vision"
LONG_PROMPT_TOKENS = 6000
_PHOTOS = (PHOTO, (1920, 1080), (4000, 3000))
_MOST_TOKENS = 24
CLIENTS = 4
_TEXT = "Why is the sky blue in the morning and red in the evening?"
_CHINESE = "请用一句话介绍北京。"
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
_REMEDIES = ("X-Request-Timeout", "max_tokens", "GLM_GATEWAY_DEADLINE_S")
_REFUSALS = (429, 503)
_TIMEOUT_S = 7200.0
_LEFT = "left"
_SPOKEN = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True)
class Question:
    """One request. Who asks leaves after `leave_after_s`; `at_once` clients send it together; while it runs,
    `meanwhile` is asked half a second later, or once who asks has left. Other servers are asked it too if it
    `is_compared`: any takes it, its first token is seen, and it takes minutes at most."""

    name: str
    body: dict[str, Any]
    path: str = CHAT
    at_once: int = 1
    leave_after_s: float | None = None
    meanwhile: Question | None = None
    is_compared: bool = False


def questions(tokenizer: Tokenizer) -> Iterator[Question]:
    """All of them, dear ones last, so that a run that is cut short has asked most kinds. What follows up or leaves
    stands behind what it needs."""
    maker = QuestionMaker(tokenizer, seed=0)
    random = np.random.default_rng(0)

    def long_text() -> str:
        words = " ".join(f"word {number}" for number in random.integers(0, 1000, LONG_PROMPT_TOKENS))
        return tokenizer.decode(tokenizer.encode_plain(words)[:LONG_PROMPT_TOKENS])

    photos = {size: maker.question(size).image for size in _PHOTOS}
    small = photos[PHOTO]
    text = Question("meanwhile: text", _chat(_TEXT, stream=True))
    yield Question("text", _chat(_TEXT))
    yield Question("text, streamed", _chat(_TEXT + " Be brief.", stream=True), is_compared=True)
    yield Question("Chinese, streamed", _chat(_CHINESE, stream=True))
    yield Question("JSON schema", _chat("Describe a car.") | {"response_format": _as_schema()})
    story = _chat("Tell me a story.", stream=True)
    yield Question(f"{CLIENTS} clients at once, streamed", story, at_once=CLIENTS, is_compared=True)
    yield Question("photo 640x480, streamed", _chat("What is this?", small, stream=True), is_compared=True)
    followed = _chat("What is this?", small, stream=True)
    followed["messages"] += [{"role": "assistant", "content": "Spots."}, {"role": "user", "content": "Which colours?"}]
    yield Question("follow-up about it, streamed", followed, is_compared=True)
    yield Question("the same photo, /v1/chat/vision", {"image": small, "prompt": "Why?", "max_tokens": 8}, VISION)
    other = maker.question(PHOTO).image
    yield Question("another 640x480 photo, and", _chat("What is this?", other, stream=True), meanwhile=text)
    left = _chat(long_text(), stream=True)
    yield Question("6,000 tokens, cancelled in prefill, and", left, leave_after_s=5.0, meanwhile=text)
    yield Question("photo 1920x1080, streamed", _chat("What is this?", photos[_PHOTOS[1]], stream=True))
    yield Question("photo 4000x3000, streamed", _chat("What is this?", photos[_PHOTOS[2]], stream=True))
    yield Question("6,000 tokens, streamed", _chat(long_text(), stream=True))


@dataclass
class Ending:
    """How one request ended. `status` is 0 where the connection broke."""

    began_s: float = field(default_factory=time.monotonic)
    status: int = 0
    code: str = ""
    sentence: str = ""
    retry_after: str = ""
    finish: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    last_token_s: float | None = None
    seconds: float = 0.0
    is_whole: bool = False

    @property
    def how(self) -> str:
        """In a few words: `stop` or `length`, `left`, or a status and the error's code."""
        if self.finish:
            return self.finish
        return f"{self.status} {self.code}".strip() if self.status else f"broken connection: {self.sentence}"

    @property
    def is_promised(self) -> bool:
        """An answer that is whole, a refusal that says when to come again, or a deadline that says what helps."""
        if self.finish == _LEFT or (self.finish and self.is_whole):
            return True
        if self.status in _REFUSALS:
            return bool(self.retry_after)
        late = self.status == 504 or self.code in ("timeout", "deadline_exceeded")
        return late and any(remedy in self.sentence for remedy in _REMEDIES)

    def row(self, name: str) -> Row:
        rate = None
        if self.first_token_s is not None and self.last_token_s is not None and self.tokens > 1:
            passed_s = self.last_token_s - self.first_token_s
            rate = rounded((self.tokens - 1) / passed_s) if passed_s > 0 else None
        return {
            "question": name,
            "how": self.how,
            "is_promised": self.is_promised,
            "sentence": self.sentence,
            "tokens": self.tokens,
            "first_token_s": None if self.first_token_s is None else rounded(self.first_token_s),
            "seconds": rounded(self.seconds),
            "tokens_per_s": rate,
        }


def ask(url: str, question: Question) -> Ending:
    """One request and how it ended; never raises for what the service does."""
    ending = Ending()
    try:
        with posted(
            url + question.path, json.dumps(question.body).encode(), question.leave_after_s or _TIMEOUT_S
        ) as answered:
            ending.status = answered.status
            ending.retry_after = answered.headers.get("Retry-After", "")
            for document in answered:
                _take(document, ending)
            ending.is_whole = answered.is_whole
    except TimeoutError:
        ending.finish = _LEFT
    except (OSError, http.client.HTTPException, ValueError) as error:
        ending.sentence = repr(error)
    ending.seconds = time.monotonic() - ending.began_s
    return ending


def _take(document: dict[str, Any], ending: Ending) -> None:
    """A whole answer, an error, or one event of a stream."""
    if error := document.get("error"):
        fields = error if isinstance(error, dict) else {"message": str(error)}
        ending.code, ending.sentence = str(fields.get("code", "")), str(fields.get("message", ""))
        return
    if "result" in document:
        ending.finish = str(document.get("finish_reason", "stop")) if document.get("success") else ""
    for choice in document.get("choices", []):
        ending.finish = choice.get("finish_reason") or ending.finish
        if any((choice.get("delta") or {}).get(part) for part in _SPOKEN):
            ending.tokens += 1  # about one a piece; an answer that is whole tells the number
            ending.last_token_s = time.monotonic() - ending.began_s
            if ending.first_token_s is None:
                ending.first_token_s = ending.last_token_s
    if usage := document.get("usage"):
        ending.tokens = int(usage["completion_tokens"])


def _chat(text: str, photo: str | None = None, *, stream: bool = False) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if photo is not None:
        parts.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}})
    body: dict[str, Any] = {"messages": [{"role": "user", "content": parts}], "max_tokens": _MOST_TOKENS}
    body["temperature"] = 0
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def _as_schema() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "car", "schema": _SCHEMA, "strict": True}}
