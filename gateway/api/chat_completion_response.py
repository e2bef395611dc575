"""Writes an answer as an OpenAI chat completion, whole or in chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from gateway.api.error_handlers import openai_problem
from gateway.api.logprobs import as_openai
from gateway.api.usage import token_counts
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.schemas.openai import Wanted
from gateway.streaming import sse
from gateway.streaming.pace import Pace
from gateway.triton.backend import Ranked
from glmserve.errors import GlmServeError
from glmserve.model.chat_template import ToolCall
from glmserve.model.tokenizer import Tokenizer

_DONE = "data: [DONE]\n\n"


class CompletionShape:
    """The `chat.completion` of one request, or its `chat.completion.chunk`s."""

    def __init__(
        self, model: str, build: str, request_id: str, tokenizer: Tokenizer, wanted: Wanted, answers: int = 1
    ) -> None:
        self._head = {
            "id": f"chatcmpl-{request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": build,
        }
        self._request_id = request_id
        self._tokenizer = tokenizer
        self._wanted = wanted
        self._pace = Pace()
        self._calls = [0] * answers
        self._prompt_tokens = 0
        self._tokens = 0  # that were streamed so far

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        body: dict[str, Any] = {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(index, each) for index, each in enumerate(answer.answers)],
            "usage": _usage(prepared, answer),
            "timings": answer.timings,
            **_timed_out(answer),
            **_videos(prepared),
        }
        return body | ({"prompt_token_ids": prepared.prompt.input_ids.tolist()} if self._wanted.token_ids else {})

    def start(self, prepared: Prepared) -> Iterator[str]:
        self._prompt_tokens = len(prepared.prompt.input_ids)
        more: dict[str, Any] = _videos(prepared)
        if self._wanted.token_ids:
            more["prompt_token_ids"] = prepared.prompt.input_ids.tolist()
        for index in range(len(self._calls)):
            yield self._chunk(index, {"role": "assistant", "content": ""}, beside=more)
            if self._wanted.echoed:
                yield self._chunk(index, {"content": self._wanted.echoed})

    def piece(self, piece: Piece) -> Iterator[str]:
        self._pace.add(piece)
        pace = {"timings": self._pace.timings(self._prompt_tokens)} if self._wanted.timings else {}
        for each in piece.pieces:
            self._tokens += len(each.tokens)
            delta: dict[str, Any] = self._thoughts(each.thinking)
            if each.content:
                delta["content"] = each.content
            if each.calls:
                delta["tool_calls"] = self._numbered(each.index, each.calls, with_index=True)
            if each.boxes:
                delta["boxes"] = [box.as_json() for box in each.boxes]
            more: dict[str, Any] = {"token_ids": list(each.tokens)} if self._wanted.token_ids and each.tokens else {}
            if delta or each.logprobs or more:
                yield self._chunk(each.index, delta, pace, logprobs=self._logprobs(each.logprobs), **more)

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        for index, each in enumerate(answer.answers):
            ended = {"finish_reason": each.finish_reason, "stop_reason": each.stop_reason}
            yield self._chunk(index, {}, _timed_out(answer), **ended)
        if self._wanted.usage:
            last = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(prepared, answer)}
            yield sse.data({**self._head, **last, "timings": answer.timings})
        yield _DONE

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(openai_problem(error))
        yield _DONE

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        content = self._wanted.echoed + answer.content
        message: dict[str, Any] = {"role": "assistant", "content": content, **self._thoughts(answer.thinking)}
        if answer.calls:
            message["tool_calls"] = self._numbered(index, answer.calls, with_index=False)
            message["content"] = content or None
        if answer.boxes:
            message["boxes"] = [box.as_json() for box in answer.boxes]
        return {
            "index": index,
            "message": message,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "logprobs": self._logprobs(answer.logprobs),
            **({"token_ids": list(answer.tokens)} if self._wanted.token_ids else {}),
        }

    def _logprobs(self, tokens: tuple[Ranked, ...]) -> dict[str, Any] | None:
        return as_openai(tokens, self._tokenizer, self._wanted.tokens_as_ids) if tokens else None

    def _thoughts(self, text: str) -> dict[str, Any]:
        """The thoughts by both names that clients have for them."""
        return {"reasoning": text, "reasoning_content": text} if text and self._wanted.thoughts else {}

    def _chunk(
        self, index: int, delta: dict[str, Any], beside: Mapping[str, Any] = MappingProxyType({}), **rest: Any
    ) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None, **rest}
        chunk: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": [choice], **beside}
        if self._wanted.running_usage:
            chunk["usage"] = token_counts(self._prompt_tokens, self._tokens)
        elif self._wanted.usage:
            chunk["usage"] = None
        return sse.data(chunk)

    def _numbered(self, index: int, calls: tuple[ToolCall, ...], with_index: bool) -> list[dict[str, Any]]:
        written = []
        for call in calls:
            number = self._calls[index]
            of_answer = f"{index}_{number}" if index else str(number)
            entry: dict[str, Any] = {
                "id": f"call_{self._request_id}_{of_answer}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            written.append({"index": number, **entry} if with_index else entry)
            self._calls[index] += 1
        return written


def _videos(prepared: Prepared) -> dict[str, Any]:
    """Which frames of each video the model sees, where there are any."""
    videos = prepared.prompt.videos
    return {"videos": list(videos)} if videos else {}


def _timed_out(answer: Answer) -> dict[str, bool]:
    """Beside the finish reason "length", which OpenAI's clients know."""
    return {"timed_out": True} if answer.timed_out else {}


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    """Of several answers, the prompt's tokens once and those of them all."""
    return {
        **token_counts(len(prepared.prompt.input_ids), answer.completion_tokens),
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "image_tokens": prepared.prompt.image_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": answer.thinking_tokens},
    }
