"""A request as the engine sees it, the sequence it becomes, and the events that answer it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from glmserve.contract import Finish
from glmserve.engine.logit_edits import LogitEdits
from glmserve.engine.ngram_index import NgramIndex
from glmserve.errors import Cancelled, DeadlineExceeded, GlmServeError
from glmserve.sampling_parameters import Sampling

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """The arrays that prefill needs; their first or last axis is the prompt's tokens.

    `input_ids` i64 [tokens], `positions` i64 [3, tokens], `delta` what later tokens add to their index, `features`
    f32 [image tokens, hidden] of each image, `image_slot` i64 [tokens] naming a row of theirs, counted from 1 through
    all images, 0 for text.
    `keys` i64 [tokens] tell prompts apart: a text token's id, an image token's content.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    delta: int
    features: tuple[np.ndarray, ...] | list[np.ndarray]
    image_slot: np.ndarray
    keys: np.ndarray

    @property
    def length(self) -> int:
        return len(self.input_ids)

    def followed_by(self, tokens: list[int]) -> Prompt:
        """The same with text tokens behind it."""
        count = len(tokens)
        more = np.array(tokens, np.int64)
        places = np.arange(self.length, self.length + count) + self.delta
        return replace(
            self,
            input_ids=np.concatenate([self.input_ids, more]),
            positions=np.concatenate([self.positions, np.repeat(places[None], 3, axis=0)], axis=1),
            image_slot=np.concatenate([self.image_slot, np.zeros(count, np.int64)]),
            keys=np.concatenate([self.keys, more]),
        )


@dataclass(frozen=True)
class Timings:
    """Seconds spent waiting for a slot, encoding images, in prefill and in decode."""

    queue_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Logprobs:
    """Of n tokens: ids i64 and natural logarithms f32 [n, 1 + alternatives], the chosen token first."""

    ids: np.ndarray
    values: np.ndarray

    def cut(self, alternatives: int) -> Logprobs:
        """With the likeliest of the alternatives only."""
        return Logprobs(self.ids[:, : 1 + alternatives], self.values[:, : 1 + alternatives])


@dataclass(frozen=True)
class Tokens:
    """New tokens of an unfinished answer; where a request has several answers, of the one with this `number`."""

    tokens: list[int]
    logprobs: Logprobs | None = None
    number: int | None = None
    is_last: ClassVar[bool] = False


@dataclass(frozen=True)
class Ended:
    """One of several answers is complete: why each has ended, RUNNING for those that have not."""

    finishes: tuple[Finish, ...]
    is_last: ClassVar[bool] = False


@dataclass(frozen=True)
class Done:
    """The answer is complete; `cached_tokens` counts the prompt tokens of its cached prefix.

    Of several answers, all are; `finishes` says why each has ended. `stop_tokens` are the request's stop tokens that
    ended the answers, -1 for those that none did; it is empty where none did any.
    """

    finish: Finish
    timings: Timings
    cached_tokens: int = 0
    finishes: tuple[Finish, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    is_last: ClassVar[bool] = True


@dataclass(frozen=True)
class Failed:
    """The request ended without a complete answer."""

    error: GlmServeError
    is_last: ClassVar[bool] = True


Event = Tokens | Ended | Done | Failed


class Grammar(Protocol):
    """A grammar that an answer must match; other threads compute its masks while the engine goes on."""

    def first_mask(self) -> Future[np.ndarray]:
        """Allowed first tokens, bool [vocabulary]."""
        ...

    def next_mask(self, token: int) -> Future[np.ndarray]:
        """Adds a token to the answer; the tokens allowed next, bool [vocabulary]."""
        ...


@dataclass(frozen=True, eq=False)
class Request:
    """A prepared request; the engine's thread calls `emit`, and polls `is_cancelled` once a step.

    `deadline` is a `time.monotonic()` instant. A `grammar` comes with its first mask done. Requests of one `scope`
    share cached prefixes.
    """

    prompt: Prompt
    sampling: Sampling
    deadline: float
    emit: Callable[[Event], None]
    is_cancelled: Callable[[], bool] = field(default=lambda: False)
    grammar: Grammar | None = None
    scope: int = 0
    vision_s: float = 0.0
    arrived: float = field(default_factory=time.monotonic)

    @cached_property
    def is_greedy(self) -> bool:
        """Whether each token is the likeliest one, without any extras; asked once a step."""
        plain = self.sampling.temperature <= 0 and not self.sampling.edits_logits
        return plain and self.grammar is None and not self.sampling.logprobs

    def reason_to_end(self, now: float) -> GlmServeError | None:
        """Why it must end before its answer is complete; None while it may go on."""
        try:
            is_cancelled = self.is_cancelled()
        except Exception:
            _log.exception("a request cannot be asked whether it is cancelled")
            is_cancelled = True  # its client cannot be reached
        if is_cancelled:
            return Cancelled("The client went away.")
        if now >= self.deadline:
            return DeadlineExceeded("The request's time ran out before its answer was complete.")
        return None


@dataclass(eq=False)
class Sequence:
    """A running request: its KV row and its tokens so far; owned by the engine's thread.

    `prompt` is what prefill reads: the request's, and after a preemption the answer so far as well. `length` counts the
    tokens whose KV is in the row, `cached` those of the cached prefix that it was last placed with, `prompt_cached`
    those of the first one. `answer` holds the sampled tokens, the last of which is not in the row yet. `edits` are what
    its parameters change about logits, `ngrams` the index for speculative decoding. `give_back` says that its slot is
    free, `outgrow` that it needs a long row now.
    """

    request: Request
    started: float
    row: int = -1
    length: int = 0
    cached: int = 0
    prompt_cached: int = 0
    preemptions: int = 0
    prompt: Prompt = field(init=False)
    answer: list[int] = field(default_factory=list)
    first_token_at: float = 0.0
    token_at: float = 0.0
    mask: Future[np.ndarray] | None = None
    edits: LogitEdits | None = None
    ngrams: NgramIndex | None = None
    give_back: Callable[[], None] = lambda: None
    outgrow: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.prompt = self.request.prompt

    def preempt(self) -> None:
        """It has lost its row: all that was in it must be read again. The newest token never was."""
        self.prompt = self.request.prompt.followed_by(self.answer[:-1])
        self.row, self.length = -1, 0
        self.preemptions += 1

    @property
    def keys(self) -> np.ndarray:
        """The keys i64 [length] of the tokens in the row."""
        prompt = self.request.prompt.keys
        if self.length <= len(prompt):
            return prompt[: self.length]
        return np.concatenate([prompt, np.array(self.answer[: self.length - len(prompt)], np.int64)])

    @property
    def has_mask(self) -> bool:
        """Whether the next token may be kept: there is no grammar, or its mask is ready."""
        return self.mask is None or (self.mask.done() and self.mask.exception() is None)

    @property
    def mask_fault(self) -> GlmServeError | None:
        error = self.mask.exception() if self.mask and self.mask.done() else None
        if error is None:
            return None
        return error if isinstance(error, GlmServeError) else GlmServeError()

    def timings(self, now: float) -> Timings:
        request = self.request
        return Timings(
            queue_s=self.started - request.arrived,
            vision_s=request.vision_s,
            prefill_s=self.first_token_at - self.started,
            decode_s=now - self.first_token_at,
        )
