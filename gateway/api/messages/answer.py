"""Writes an answer as Anthropic's message, whole or as its events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.api.messages.problem import messages_problem
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.streaming import sse
from glmserve.errors import GlmServeError
from glmserve.model.chat_template import ToolCall

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
_DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


class MessageShape:
    """The `message` of one request, or the events that it grows by: a block at a time, each begun and ended."""

    def __init__(self, model: str, request_id: str) -> None:
        self._model = model
        self._request_id = request_id
        self._name = request_id.replace(".", "_")
        self._block = -1  # the index of the last one begun
        self._open: str | None = None  # its type, while it is open
        self._calls = 0

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": answer.thinking, "signature": self._name})
        if answer.content:
            content.append({"type": "text", "text": answer.content})
        content += [{**self._called(call), "input": call.arguments} for call in answer.calls]
        content = content or [{"type": "text", "text": ""}]
        return {**self._message(content, _usage(prepared, answer)), **_ending(answer)}

    def start(self, prepared: Prepared) -> Iterator[str]:
        usage = {**_NO_USAGE, "input_tokens": len(prepared.prompt.input_ids)}
        yield sse.named("message_start", {"type": "message_start", "message": self._message([], usage)})
        yield sse.named("ping", {"type": "ping"})

    def piece(self, piece: Piece) -> Iterator[str]:
        if piece.thinking:
            yield from self._grow("thinking", {"thinking": "", "signature": ""}, piece.thinking)
        if piece.content:
            yield from self._grow("text", {"text": ""}, piece.content)
        for call in piece.calls:
            yield from self._close()
            yield self._begin("tool_use", {**self._called(call), "input": {}})
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        if self._block < 0:  # clients read the first block of an answer that says nothing, too
            yield self._begin("text", {"type": "text", "text": ""})
        yield from self._close()
        ending = {"type": "message_delta", "delta": _ending(answer), "usage": _usage(prepared, answer)}
        yield sse.named("message_delta", ending)
        yield sse.named("message_stop", {"type": "message_stop"})

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.named("error", messages_problem(error, self._request_id))

    def _message(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"msg_{self._name}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _called(self, call: ToolCall) -> dict[str, Any]:
        self._calls += 1
        return {"type": "tool_use", "id": f"toolu_{self._name}_{self._calls - 1}", "name": call.name}

    def _grow(self, kind: str, empty: dict[str, Any], text: str) -> Iterator[str]:
        if self._open != kind:
            yield from self._close()
            yield self._begin(kind, {"type": kind, **empty})
        yield self._delta({"type": _DELTAS[kind], kind: text})

    def _begin(self, kind: str, block: dict[str, Any]) -> str:
        self._block, self._open = self._block + 1, kind
        begun = {"type": "content_block_start", "index": self._block, "content_block": block}
        return sse.named("content_block_start", begun)

    def _delta(self, delta: dict[str, Any]) -> str:
        grown = {"type": "content_block_delta", "index": self._block, "delta": delta}
        return sse.named("content_block_delta", grown)

    def _close(self) -> Iterator[str]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": self._name})
        self._open = None
        yield sse.named("content_block_stop", {"type": "content_block_stop", "index": self._block})


_NO_USAGE = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    """Tokens whose KV was kept from an earlier prompt count apart from the others."""
    return _NO_USAGE | {
        "input_tokens": len(prepared.prompt.input_ids) - answer.cached_tokens,
        "cache_read_input_tokens": answer.cached_tokens,
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"thinking_tokens": answer.thinking_tokens},
    }


def _ending(answer: Answer) -> dict[str, Any]:
    reason = "stop_sequence" if answer.stop_string is not None else _REASONS.get(answer.finish_reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": answer.stop_string}
