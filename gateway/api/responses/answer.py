"""Writes an answer as OpenAI's response: its items when it has ended, or the events that they grow by."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from gateway.api.error_handlers import field_of, sentence_for
from gateway.api.logprobs import as_openai
from gateway.api.responses.body import Asked
from gateway.api.responses.growing import GrowingItem, Kind
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.streaming import sse
from gateway.triton.backend import Ranked
from glmserve.errors import GlmServeError
from glmserve.model.chat_template import ToolCall
from glmserve.model.tokenizer import Tokenizer


class ResponseShape:
    """The `response` of one request, or its events, each with the next sequence number."""

    def __init__(self, model: str, request_id: str, tokenizer: Tokenizer, asked: Asked) -> None:
        self._request_id = request_id
        self._tokenizer = tokenizer
        self._head = _head(model, request_id, asked)
        self._shows_tokens = bool(asked.read.enable_response_messages)
        self._thoughts: Kind = "summary" if asked.summarises else "reasoning"
        self._output: list[dict[str, Any]] = []
        self._growing: GrowingItem | None = None
        self._events = 0

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        for kind, text in ((self._thoughts, answer.thinking), ("message", answer.content)):
            if text:
                self._grow(kind, text, answer.logprobs if kind == "message" else ())
        for call in answer.calls:
            self._call(call)
        self._close(answer.finish_reason)
        return self._finished(prepared, answer)

    def start(self, prepared: Prepared) -> Iterator[str]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event({"type": kind, "response": self._response("in_progress")})

    def piece(self, piece: Piece) -> Iterator[str]:
        events: list[dict[str, Any]] = []
        if piece.thinking:
            events += self._grow(self._thoughts, piece.thinking)
        if piece.content:
            events += self._grow("message", piece.content, piece.logprobs)
        for call in piece.calls:
            events += self._call(call)
        yield from map(self._event, events)

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        yield from map(self._event, self._close(answer.finish_reason))
        response = self._finished(prepared, answer)
        yield self._event({"type": f"response.{response['status']}", "response": response})

    def failure(self, error: GlmServeError) -> Iterator[str]:
        told = {"code": error.code, "message": sentence_for(error)}
        yield self._event({"type": "error", **told, "param": field_of(error)})
        response = {**self._response("failed"), "error": {**told, "code": "server_error"}}
        yield self._event({"type": "response.failed", "response": response})

    def _grow(self, kind: Kind, text: str, logprobs: tuple[Ranked, ...] = ()) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        if self._growing is None or self._growing.kind != kind:
            events = self._close()
            self._growing = GrowingItem(kind, self._name(kind), len(self._output))
            events += self._growing.begin()
        spelled = as_openai(logprobs, self._tokenizer)["content"] if logprobs else []
        return [*events, self._growing.grow(text, spelled)]

    def _call(self, call: ToolCall) -> list[dict[str, Any]]:
        events = self._close()
        called = GrowingItem("call", self._name("call"), len(self._output), call.name)
        begun = called.begin()
        grown = called.grow(json.dumps(call.arguments, ensure_ascii=False), [])
        self._growing = called
        return [*events, *begun, grown, *self._close()]

    def _close(self, finish_reason: str = "stop") -> list[dict[str, Any]]:
        """Ends the item that grows, if there is one."""
        if self._growing is None:
            return []
        item, events = self._growing.end("incomplete" if finish_reason == "length" else "completed")
        self._output.append(item)
        self._growing = None
        return events

    def _name(self, kind: Kind) -> str:
        prefix = {"message": "msg", "call": "fc"}.get(kind, "rs")
        return f"{prefix}_{self._request_id}_{len(self._output)}"

    def _finished(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        response = self._response(*_status(answer), usage=_usage(prepared, answer))
        if self._shows_tokens:
            response["input_messages"] = [self._raw(prepared.prompt.input_ids.tolist())]
            response["output_messages"] = [self._raw(list(answer.tokens))]
        return response

    def _raw(self, ids: list[int]) -> dict[str, Any]:
        """Tokens as vLLM shows them beside a response."""
        return {"type": "raw_message_tokens", "message": self._tokenizer.decode(ids), "tokens": ids}

    def _response(self, status: str, reason: str | None = None, usage: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": list(self._output),
            "usage": usage,
        }

    def _event(self, values: dict[str, Any]) -> str:
        self._events += 1
        return sse.named(values["type"], {**values, "sequence_number": self._events - 1})


def _head(model: str, request_id: str, asked: Asked) -> dict[str, Any]:
    """What a response says of its request."""
    read, sampling = asked.read, asked.conversation.sampling
    sent = read.model_dump(by_alias=True, exclude_none=True, include={"tools", "tool_choice", "text"})
    text = sent.get("text", {})
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "error": None,
        "background": False,
        "instructions": read.instructions,
        "max_output_tokens": getattr(read, "max_output_tokens", None),
        "max_tool_calls": None,
        "metadata": read.metadata or {},
        "parallel_tool_calls": read.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": read.reasoning.model_dump() if read.reasoning else {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": sent.get("tool_choice", "auto"),
        "tools": [{"parameters": None, "strict": None, **tool} for tool in sent.get("tools", [])],
        "top_logprobs": read.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": read.user,
    }


def _status(answer: Answer) -> tuple[str, str | None]:
    """How the response ended, and why where it is incomplete."""
    return ("incomplete", "max_output_tokens") if answer.finish_reason == "length" else ("completed", None)


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    prompt_tokens = len(prepared.prompt.input_ids)
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.thinking_tokens},
        "total_tokens": prompt_tokens + answer.completion_tokens,
    }
