"""Turns an answer's tokens into text: pieces while it is generated, and the whole answer at its end."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from gateway.triton.backend import BackendPool, Chunk, GenerateRequest, Ranked
from glmserve.contract import Finish
from glmserve.errors import BackendDown
from glmserve.model.chat_template import ToolCall
from glmserve.model.output_parser import AnswerReader, Delta
from glmserve.model.tokenizer import Tokenizer
from glmserve.model.tool_parser import typed_call

_STAGES = ("queue_ms", "vision_ms", "prefill_ms", "decode_ms")


@dataclass(frozen=True)
class Piece:
    """The text that one message of the backend added."""

    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Ranked, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A finished answer; `finish_reason` is stop, length or tool_calls, `timings` are milliseconds by stage."""

    content: str
    thinking: str
    finish_reason: str
    completion_tokens: int
    cached_tokens: int = 0
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Ranked, ...] = ()
    timings: dict[str, float] | None = None
    stop_string: str | None = None  # the one that ended it


Event = Piece | Answer
StartedAnswer = tuple[Event, Generator[Event]]
"""An answer's first event, and the generator of the rest."""


class AnswerStream:
    """Reads one answer from the backend: its pieces as they arrive, then the answer."""

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...], tools: tuple[dict[str, Any], ...], is_raw: bool = False
    ) -> None:
        self._reader = AnswerReader(tokenizer, stop, reads_calls=bool(tools), is_raw=is_raw)
        self._tools = tools
        self._calls: list[ToolCall] = []
        self._logprobs: list[Ranked] = []

    def events(self, pool: BackendPool, request: GenerateRequest) -> Generator[Event]:
        """Generates until the end or the first stop string, which cancels the rest, as closing the generator does."""
        began = time.monotonic()
        first_ms: float | None = None
        last = Chunk((), Finish.RUNNING)
        with pool.choose() as backend, closing(backend.generate(request)) as chunks:
            for last in chunks:
                if first_ms is None and last.tokens:
                    first_ms = _ms_since(began)
                piece = self._piece(last)
                if self._reader.stopped:
                    break
                yield piece
        if self._reader.stopped:
            yield piece  # after the rest was cancelled
        yield self._piece_of(self._reader.finish())
        if last.finish == Finish.RUNNING and not self._reader.stopped:
            raise BackendDown
        yield Answer(
            content=self._reader.content,
            thinking=self._reader.thinking,
            finish_reason=self._reason(last.finish),
            completion_tokens=self._reader.tokens,
            cached_tokens=last.cached_tokens,
            calls=tuple(self._calls),
            logprobs=tuple(self._logprobs),
            timings=_timings(last.timings_ms, first_ms, _ms_since(began)),
            stop_string=self._reader.stop_string,
        )

    def _piece(self, chunk: Chunk) -> Piece:
        if not chunk.logprobs:
            return self._piece_of(self._reader.push(list(chunk.tokens)))
        piece, logprobs = Piece(), []
        for token, ranked in zip(chunk.tokens, chunk.logprobs, strict=True):
            if self._reader.is_said(token):
                logprobs.append(ranked)
            added = self._piece_of(self._reader.push([token]))
            piece = Piece(piece.content + added.content, piece.thinking + added.thinking, piece.calls + added.calls)
        self._logprobs += logprobs
        return Piece(piece.content, piece.thinking, piece.calls, tuple(logprobs))

    def _piece_of(self, delta: Delta) -> Piece:
        calls = tuple(typed_call(call, self._tools) for call in delta.calls)
        self._calls += calls
        return Piece(delta.content, delta.thinking, calls)

    def _reason(self, finish: Finish) -> str:
        if finish == Finish.LENGTH and not self._reader.stopped:
            return "length"
        return "tool_calls" if self._calls else "stop"


def started(events: Generator[Event]) -> StartedAnswer:
    """Waits for the first event."""
    return next(events), events


def whole(events: Generator[Event]) -> Answer:
    """The answer at the end of its pieces."""
    with closing(events):
        for event in events:
            if isinstance(event, Answer):
                return event
    raise BackendDown


def _timings(stages_ms: tuple[float, ...], first_ms: float | None, total_ms: float) -> dict[str, float]:
    timings = {name: round(ms, 1) for name, ms in zip(_STAGES, stages_ms, strict=False)}
    if first_ms is not None:
        timings["first_token_ms"] = first_ms
    return timings | {"total_ms": total_ms}


def _ms_since(began_s: float) -> float:
    return round((time.monotonic() - began_s) * 1000, 1)
