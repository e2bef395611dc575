"""What the gateway asks of whoever generates tokens, and a fake that answers from a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glmserve.contract import Finish
from glmserve.errors import BackendDown, DeadlineExceeded, GlmServeError
from glmserve.images import Grid


@dataclass(frozen=True)
class GenerateRequest:
    """One answer to generate; `deadline_s` is the time left when it is handed over."""

    request_id: str
    input_ids: NDArray[np.int64]  # i64 [tokens]
    patches: NDArray[np.uint8] | None  # u8 [patches, patch_bytes]
    grids: tuple[Grid, ...]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    deadline_s: float


@dataclass(frozen=True)
class Chunk:
    """One message of an answer; any `finish` but RUNNING marks the last."""

    tokens: tuple[int, ...]
    finish: Finish
    timings_ms: tuple[float, ...] = ()
    cached_tokens: int = 0


class Backend(Protocol):
    """Generates answers; shared between threads, and closed by whoever made it."""

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages in order, the last one finished; closing the generator cancels the work.

        Raises errors of the GlmServeError tree only, and never waits past the request's deadline.
        """
        ...

    def models_ready(self) -> bool:
        """Whether every model is loaded; answers within seconds and does not raise."""
        ...

    def close(self) -> None: ...


@dataclass
class FakeBackend:
    """Answers every request with the same script: chunks in order, then `error` if there is one.

    `gate` is waited for before the first chunk, as long as the deadline allows. `requests` keeps what was asked,
    `cancelled` counts answers that were closed before their end.
    """

    chunks: list[Chunk] = field(default_factory=list)
    error: GlmServeError | None = None
    is_ready: bool = True
    gate: threading.Event | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    cancelled: int = 0

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        give_up = time.monotonic() + request.deadline_s
        self.requests.append(request)
        if self.gate is not None and not self.gate.wait(max(0.0, give_up - time.monotonic())):
            raise DeadlineExceeded
        try:
            yield from self.chunks
        except GeneratorExit:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        if not self.chunks or self.chunks[-1].finish == Finish.RUNNING:
            raise BackendDown

    def models_ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        """Nothing to give back."""
