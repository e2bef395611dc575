"""One request as the engine sees it, and the events it answers with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from glmserve.contract import Finish
from glmserve.errors import GlmServeError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy, top_k 0 is no bound of its own."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """Everything a prefill needs, in arrays whose first or last axis is the prompt's tokens.

    `input_ids` i64 [tokens], `positions` i64 [3, tokens], `delta` what later tokens add to their index, `features`
    f32 [image tokens + 1, hidden] whose row 0 is a dummy, `image_slot` i64 [tokens] naming a feature row, 0 for text.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    delta: int
    features: np.ndarray
    image_slot: np.ndarray

    @property
    def length(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Timings:
    """Seconds spent waiting for a slot, on pictures, on the prompt and on the answer."""

    queue_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Tokens:
    """New tokens of an answer that goes on."""

    tokens: list[int]
    is_last: ClassVar[bool] = False


@dataclass(frozen=True)
class Done:
    """The answer is complete."""

    finish: Finish
    timings: Timings
    is_last: ClassVar[bool] = True


@dataclass(frozen=True)
class Failed:
    """The request ended without a complete answer."""

    error: GlmServeError
    is_last: ClassVar[bool] = True


Event = Tokens | Done | Failed


@dataclass(frozen=True, eq=False)
class Request:
    """What was asked; `emit` is called on the engine's thread, `is_cancelled` is polled there once a step.

    `deadline` is a `time.monotonic()` instant.
    """

    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    deadline: float
    emit: Callable[[Event], None]
    is_cancelled: Callable[[], bool] = field(default=lambda: False)
    vision_s: float = 0.0
    arrived: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Running:
    """A request that holds a row, and how far it has come; owned by the engine's thread.

    `length` counts the tokens whose KV is in the row; `last_token` was sampled but is not in it yet.
    """

    request: Request
    row: int
    started: float
    length: int = 0
    generated: int = 0
    last_token: int = -1
    first_token_at: float = 0.0

    def timings(self, now: float) -> Timings:
        request = self.request
        return Timings(
            queue_s=self.started - request.arrived,
            vision_s=request.vision_s,
            prefill_s=self.first_token_at - self.started,
            decode_s=now - self.first_token_at,
        )
