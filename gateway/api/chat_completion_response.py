"""Writes an answer as an OpenAI chat completion, whole or in chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from gateway.api.error_handlers import openai_problem
from gateway.api.logprobs import as_openai
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.streaming import sse
from glmserve.errors import GlmServeError
from glmserve.model.chat_template import ToolCall
from glmserve.model.tokenizer import Tokenizer

_DONE = "data: [DONE]\n\n"


class CompletionShape:
    """The `chat.completion` of one request, or its `chat.completion.chunk`s."""

    def __init__(self, model: str, build: str, request_id: str, tokenizer: Tokenizer, includes_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": build,
        }
        self._request_id = request_id
        self._tokenizer = tokenizer
        self._includes_usage = includes_usage
        self._calls = 0

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = self._numbered(answer.calls, with_index=False)
            message["content"] = answer.content or None
        if answer.boxes:
            message["boxes"] = [box.as_json() for box in answer.boxes]
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        choice["logprobs"] = as_openai(answer.logprobs, self._tokenizer) if answer.logprobs else None
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(prepared, answer),
            "timings": answer.timings,
            **_timed_out(answer),
        }

    def start(self, prepared: Prepared) -> Iterator[str]:
        yield self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: Piece) -> Iterator[str]:
        delta: dict[str, Any] = {}
        if piece.thinking:
            delta["reasoning_content"] = piece.thinking
        if piece.content:
            delta["content"] = piece.content
        if piece.calls:
            delta["tool_calls"] = self._numbered(piece.calls, with_index=True)
        if piece.boxes:
            delta["boxes"] = [box.as_json() for box in piece.boxes]
        if delta or piece.logprobs:
            logprobs = as_openai(piece.logprobs, self._tokenizer) if piece.logprobs else None
            yield self._chunk(delta, logprobs=logprobs)

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        yield self._chunk({}, _timed_out(answer), finish_reason=answer.finish_reason)
        if self._includes_usage:
            last = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(prepared, answer)}
            yield sse.data({**self._head, **last, "timings": answer.timings})
        yield _DONE

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(openai_problem(error))

    def _chunk(self, delta: dict[str, Any], beside: Mapping[str, Any] = MappingProxyType({}), **rest: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None, **rest}
        chunk: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": [choice], **beside}
        if self._includes_usage:
            chunk["usage"] = None
        return sse.data(chunk)

    def _numbered(self, calls: tuple[ToolCall, ...], with_index: bool) -> list[dict[str, Any]]:
        written = []
        for call in calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            entry: dict[str, Any] = {
                "id": f"call_{self._request_id}_{self._calls}",
                "type": "function",
                "function": {"name": call.name, "arguments": arguments},
            }
            written.append({"index": self._calls, **entry} if with_index else entry)
            self._calls += 1
        return written


def _timed_out(answer: Answer) -> dict[str, bool]:
    """Beside the finish reason "length", which OpenAI's clients know."""
    return {"timed_out": True} if answer.timed_out else {}


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    prompt_tokens = len(prepared.prompt.input_ids)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "image_tokens": prepared.prompt.image_tokens,
        },
    }
