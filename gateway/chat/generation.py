"""Turns an answer's tokens into text: pieces while it is generated, and the whole answer at its end."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

from gateway.chat.boxes import PlacedBox, placed
from gateway.schemas.conversation import Conversation
from gateway.triton.backend import BackendPool, Chunk, GenerateRequest, Ranked
from glmserve.contract import Finish
from glmserve.errors import BackendDown, DeadlineExceeded
from glmserve.model.chat_template import ToolCall
from glmserve.model.output_parser import AnswerReader, Delta
from glmserve.model.tokenizer import Tokenizer
from glmserve.model.tool_parser import typed_call

_STAGES = ("queue_ms", "vision_ms", "prefill_ms", "decode_ms")


@dataclass(frozen=True)
class Piece:
    """The text that one message of the backend added to an answer, and the tokens it was made of.

    Where several answers are wanted, this is the one numbered `index`, and `others` are what it added to others.
    """

    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    boxes: tuple[PlacedBox, ...] = ()
    logprobs: tuple[Ranked, ...] = ()
    tokens: tuple[int, ...] = ()
    index: int = 0
    others: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return self, *self.others


@dataclass(frozen=True)
class Answer:
    """A finished answer; `finish_reason` is stop, length or tool_calls, `timings` are milliseconds by stage.

    Where several answers are wanted, this is the first of them, `others` are the next, and `completion_tokens` and
    `thinking_tokens` count those of them all. `timed_out` says that it was cut where its time ran out; its finish
    reason is then length, which clients know.
    """

    content: str
    thinking: str
    finish_reason: str
    completion_tokens: int
    cached_tokens: int = 0
    calls: tuple[ToolCall, ...] = ()
    boxes: tuple[PlacedBox, ...] = ()
    logprobs: tuple[Ranked, ...] = ()
    timings: dict[str, float] | None = None
    timed_out: bool = False
    stop_string: str | None = None  # the one that ended it
    stop_token: int | None = None  # the id that ended it, where that is one of the request's
    thinking_tokens: int = 0
    tokens: tuple[int, ...] = ()
    others: tuple[Answer, ...] = ()

    @property
    def answers(self) -> tuple[Answer, ...]:
        return self, *self.others

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or the id of the stop token that ended it, as vLLM tells it."""
        return self.stop_token if self.stop_string is None else self.stop_string


Event = Piece | Answer
StartedAnswer = tuple[Event, Generator[Event]]
"""An answer's first event, and the generator of the rest."""


class AnswerStream:
    """Reads the answers to one request from the backend: their pieces as they arrive, then the answers."""

    def __init__(
        self, tokenizer: Tokenizer, conversation: Conversation, image_sizes: tuple[tuple[int, int], ...] = ()
    ) -> None:
        """`image_sizes` are width and height of the request's images, in which boxes are placed.

        With the conversation's `partial_on_timeout`, an answer of which there is a token when its time runs out ends
        there.
        """
        self._choices = [_Choice(tokenizer, conversation, image_sizes, index) for index in range(conversation.answers)]
        self._partial_on_timeout = conversation.partial_on_timeout
        self._timed_out = False

    def events(self, pool: BackendPool, request: GenerateRequest) -> Generator[Event]:
        """Generates until every answer has ended or met a stop string, which cancels the rest, as closing the generator
        does. Each message becomes one piece."""
        began = time.monotonic()
        first_ms: float | None = None
        last = Chunk((), Finish.RUNNING)
        has_stopped = False
        with pool.choose() as backend, closing(backend.generate(request)) as chunks:
            for last in self._until_late(chunks):
                if first_ms is None and last.tokens:
                    first_ms = _ms_since(began)
                piece = self._piece(last)
                has_stopped = last.finish == Finish.RUNNING and all(choice.has_ended for choice in self._choices)
                if has_stopped:
                    break
                yield piece
        if has_stopped:
            yield piece  # after the rest was cancelled
        yield _joined([choice.finish() for choice in self._choices])
        for choice, token in zip(self._choices, last.stop_tokens, strict=False):
            choice.stop_token = None if token < 0 else token
        if not self._timed_out and not all(choice.has_ended for choice in self._choices):
            raise BackendDown
        timings = _timings(last.timings_ms, first_ms, _ms_since(began))
        yield self._answer(last.cached_tokens, timings)

    def _until_late(self, chunks: Generator[Chunk]) -> Generator[Chunk]:
        """The chunks, to the end or, where the client wants what there is, until time has run out."""
        try:
            yield from chunks
        except DeadlineExceeded:
            if not self._partial_on_timeout or not any(choice.has_begun for choice in self._choices):
                raise
            self._timed_out = True

    def _piece(self, chunk: Chunk) -> Piece:
        if len(self._choices) == 1:
            return self._choices[0].read(chunk.tokens, chunk.logprobs, chunk.finish)
        pieces = []
        for choice in self._choices:
            at = [place for place, number in enumerate(chunk.choices) if number == choice.index]
            finish = chunk.finishes[choice.index] if chunk.finishes else Finish.RUNNING
            logprobs = tuple(chunk.logprobs[place] for place in at) if chunk.logprobs else ()
            pieces.append(choice.read(tuple(chunk.tokens[place] for place in at), logprobs, finish))
        return _joined(pieces)

    def _answer(self, cached_tokens: int, timings: dict[str, float]) -> Answer:
        first, *others = (choice.answer(self._timed_out) for choice in self._choices)
        return replace(
            first,
            completion_tokens=sum(each.completion_tokens for each in (first, *others)),
            thinking_tokens=sum(each.thinking_tokens for each in (first, *others)),
            cached_tokens=cached_tokens,
            timings=timings,
            timed_out=self._timed_out,
            others=tuple(others),
        )


class _Choice:
    """One answer while it is read; `has_ended` turns true when it met a stop string or its generation ended."""

    def __init__(
        self, tokenizer: Tokenizer, conversation: Conversation, image_sizes: tuple[tuple[int, int], ...], index: int
    ) -> None:
        self.index = index
        self._image_sizes = image_sizes
        self._reader = AnswerReader(
            tokenizer,
            conversation.stop,
            reads_calls=bool(conversation.tools),
            is_raw=conversation.raw is not None and conversation.is_text,
            max_calls=conversation.most_calls,
            rules=conversation.rules,
        )
        self._tools = conversation.tools
        self._finish_of_calls = conversation.finish_of_calls
        self._finish = Finish.RUNNING
        self._calls: list[ToolCall] = []
        self._logprobs: list[Ranked] = []
        self._tokens: list[int] = []
        self.stop_token: int | None = None

    @property
    def has_begun(self) -> bool:
        return self._reader.tokens > 0

    @property
    def has_ended(self) -> bool:
        return self._reader.stopped or self._finish != Finish.RUNNING

    def read(self, tokens: tuple[int, ...], logprobs: tuple[Ranked, ...], finish: Finish) -> Piece:
        """What these tokens add; `finish` says whether the generation of this answer ends with them."""
        if self._finish == Finish.RUNNING:
            self._finish = finish
        before = self._reader.tokens
        if logprobs:
            piece = self._ranked(tokens, logprobs)
            piece = replace(piece, tokens=tokens[: self._reader.tokens - before])
        else:
            delta = self._reader.push(list(tokens))
            piece = self._piece_of(delta, tokens[: self._reader.tokens - before])
        self._tokens += piece.tokens
        return piece

    def finish(self) -> Piece:
        """What was held back."""
        return self._piece_of(self._reader.finish())

    def answer(self, timed_out: bool) -> Answer:
        """The whole answer with its own tokens counted; one that has not ended was cut where its time ran out."""
        is_cut = (self._finish == Finish.LENGTH and not self._reader.stopped) or (timed_out and not self.has_ended)
        return Answer(
            content=self._reader.content,
            thinking=self._reader.thinking,
            finish_reason="length" if is_cut else self._finish_of_calls if self._calls else "stop",
            completion_tokens=self._reader.tokens,
            calls=tuple(self._calls),
            boxes=placed(self._reader.boxes, self._image_sizes),
            logprobs=tuple(self._logprobs),
            stop_string=self._reader.stop_string,
            stop_token=self.stop_token,
            thinking_tokens=self._reader.thinking_tokens,
            tokens=tuple(self._tokens),
        )

    def _ranked(self, tokens: tuple[int, ...], logprobs: tuple[Ranked, ...]) -> Piece:
        """What these tokens add, with the log-probabilities of those that are said."""
        content, thinking = "", ""
        calls: tuple[ToolCall, ...] = ()
        boxes: tuple[PlacedBox, ...] = ()
        said = []
        for token, ranked in zip(tokens, logprobs, strict=True):
            if self._reader.is_said(token):
                said.append(ranked)
            added = self._piece_of(self._reader.push([token]))
            content, thinking = content + added.content, thinking + added.thinking
            calls, boxes = calls + added.calls, boxes + added.boxes
        self._logprobs += said
        return Piece(content, thinking, calls, boxes, tuple(said), index=self.index)

    def _piece_of(self, delta: Delta, tokens: tuple[int, ...] = ()) -> Piece:
        calls = tuple(typed_call(call, self._tools) for call in delta.calls)
        self._calls += calls
        boxes = placed(delta.boxes, self._image_sizes)
        return Piece(delta.content, delta.thinking, calls, boxes, tokens=tokens, index=self.index)


def _joined(pieces: list[Piece]) -> Piece:
    """Several answers' pieces as one event; those that say nothing are left out."""
    said = [piece for piece in pieces if piece.tokens or piece.content or piece.thinking or piece.calls or piece.boxes]
    if not said:
        return pieces[0]
    return replace(said[0], others=tuple(said[1:]))


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
