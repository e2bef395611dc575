"""Writes an answer as an OpenAI text completion, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gateway.api.error_handlers import openai_problem
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.streaming import sse
from gateway.triton.backend import Ranked
from glmserve.errors import GlmServeError
from glmserve.model.tokenizer import Tokenizer

_DONE = "data: [DONE]\n\n"


class TextShape:
    """The `text_completion` of one request, or its pieces; `echoed` is text that stands before the answer."""

    def __init__(
        self, model: str, build: str, request_id: str, tokenizer: Tokenizer, echoed: str, includes_usage: bool
    ) -> None:
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": build,
        }
        self._tokenizer = tokenizer
        self._echoed = echoed
        self._includes_usage = includes_usage
        self._written = 0  # characters, for text_offset

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        choice = self._choice(self._echoed + answer.content, answer.logprobs, answer.finish_reason)
        return {**self._head, "choices": [choice], "usage": _usage(prepared, answer), "timings": answer.timings}

    def start(self, prepared: Prepared) -> Iterator[str]:
        if self._echoed:
            yield self._event(self._echoed, ())

    def piece(self, piece: Piece) -> Iterator[str]:
        if piece.content or piece.logprobs:
            yield self._event(piece.content, piece.logprobs)

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        yield self._event("", (), answer.finish_reason)
        if self._includes_usage:
            usage: dict[str, Any] = {"choices": [], "usage": _usage(prepared, answer), "timings": answer.timings}
            yield sse.data({**self._head, **usage})
        yield _DONE

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(openai_problem(error))

    def _event(self, text: str, logprobs: tuple[Ranked, ...], finish_reason: str | None = None) -> str:
        event: dict[str, Any] = {**self._head, "choices": [self._choice(text, logprobs, finish_reason)]}
        if self._includes_usage:
            event["usage"] = None
        return sse.data(event)

    def _choice(self, text: str, logprobs: tuple[Ranked, ...], finish_reason: str | None) -> dict[str, Any]:
        told = self._logprobs(logprobs) if logprobs else None
        return {"index": 0, "text": text, "logprobs": told, "finish_reason": finish_reason}

    def _logprobs(self, tokens: tuple[Ranked, ...]) -> dict[str, Any]:
        offsets = []
        for ranked in tokens:
            offsets.append(self._written)
            self._written += len(self._spelled(ranked[0][0]))
        return {
            "tokens": [self._spelled(ranked[0][0]) for ranked in tokens],
            "token_logprobs": [ranked[0][1] for ranked in tokens],
            "top_logprobs": [{self._spelled(token): value for token, value in ranked[1:]} for ranked in tokens],
            "text_offset": offsets,
        }

    def _spelled(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode("utf-8", "replace")


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    prompt_tokens = len(prepared.prompt.input_ids)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
