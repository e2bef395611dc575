"""What the gateway asks of whoever generates tokens, and a fake that answers from a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.triton.stream_buffer import StreamBuffer
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import Sampling

READY_TIMEOUT_S = 2.0
"""What a Triton may take to say whether a model is loaded."""
_GATE_POLL_S = 0.01
Ranked = tuple[tuple[int, float], ...]
"""A token's id and log-probability, then those of the likeliest tokens in its place."""


class Cancellation:
    """Says once that nobody waits for an answer any more; any thread may say so, and runs what was left to be run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], object]] = []
        self._event: threading.Event | None = None  # weighs a kilobyte, and hardly anybody waits for it
        self.is_said = False

    @property
    def said(self) -> threading.Event:
        """For whoever wants to wait until it is said."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
                if self.is_said:
                    self._event.set()
            return self._event

    def then(self, action: Callable[[], object]) -> None:
        """Runs `action` when the time comes, or now if it has come already."""
        with self._lock:
            if not self.is_said:
                self._actions.append(action)
                return
        action()

    def say(self) -> None:
        with self._lock:
            self.is_said = True
            if self._event is not None:
                self._event.set()
            actions, self._actions = self._actions, []
        for action in actions:
            action()


@dataclass(frozen=True)
class GenerateRequest:
    """One answer to generate; `deadline_s` is the time left when it is handed over."""

    request_id: str
    input_ids: NDArray[np.int64]  # i64 [tokens]
    patches: NDArray[np.uint8] | None  # u8 [patches, patch_bytes]
    grids: tuple[Grid, ...]
    sampling: Sampling
    deadline_s: float
    grammar: bytes = b""  # a JSON Schema
    cache_scope: int = 0
    traceparent: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation, compare=False)
    stream_buffer: StreamBuffer | None = field(
        default=None, compare=False
    )  # where a backend that can puts what comes of a stream


@dataclass(frozen=True)
class Chunk:
    """One message of an answer; any `finish` but RUNNING marks the last."""

    tokens: tuple[int, ...]
    finish: Finish
    timings_ms: tuple[float, ...] = ()
    cached_tokens: int = 0
    logprobs: tuple[Ranked, ...] = ()  # one for each token, where they were asked for


class Backend(Protocol):
    """Generates answers; shared between threads, and closed by whoever made it."""

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages in order, the last one finished; closing the generator cancels the work.

        So does the request's `cancellation`, which ends it with Cancelled. Raises errors of the GlmServeError tree
        only, and never waits more than a second past the request's deadline.
        """
        ...

    def models_ready(self) -> bool:
        """Whether every model is loaded; answers within seconds and does not raise."""
        ...

    def close(self) -> None: ...


@dataclass
class FakeBackend:
    """Answers every request with the same script: chunks in order, then `error` if there is one.

    `gate` is waited for before the first chunk, as long as deadline and client allow, and `beat_s` before each other.
    `requests` keeps what was asked, `cancelled` counts answers that were given up before their end.
    """

    chunks: list[Chunk] = field(default_factory=list)
    error: GlmServeError | None = None
    is_ready: bool = True
    gate: threading.Event | None = None
    beat_s: float = 0.0
    requests: list[GenerateRequest] = field(default_factory=list)
    cancelled: int = 0

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        self.requests.append(request)
        try:
            self._wait_at_gate(request)
            for chunk in self.chunks:
                if self.beat_s and request.cancellation.said.wait(self.beat_s):
                    raise Cancelled
                yield chunk
        except (GeneratorExit, Cancelled):
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        if not self.chunks or self.chunks[-1].finish == Finish.RUNNING:
            raise BackendDown

    def _wait_at_gate(self, request: GenerateRequest) -> None:
        give_up = time.monotonic() + request.deadline_s
        while self.gate is not None and not self.gate.is_set():
            if request.cancellation.said.wait(_GATE_POLL_S):
                raise Cancelled
            if time.monotonic() >= give_up:
                raise DeadlineExceeded

    def models_ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        """Nothing to give back."""
