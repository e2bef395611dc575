"""A backend that answers every request from a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.triton.backend import Chunk, GenerateRequest
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError

_GATE_POLL_S = 0.01


@dataclass
class FakeBackend:
    """Answers every request with the same script: chunks in order, then `error` if there is one.

    `gate` is waited for before the first chunk, as long as deadline and client allow, and `beat_s` before each other.
    `requests` keeps what was asked, `cancelled` counts answers that were given up before their end.
    """

    chunks: list[Chunk] = field(default_factory=list)
    error: GlmServeError | None = None
    is_ready: bool = True
    up: int = 1
    gate: threading.Event | None = None
    beat_s: float = 0.0
    requests: list[GenerateRequest] = field(default_factory=list)
    cancelled: int = 0

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        self.requests.append(request)
        try:
            self._wait_at_gate(request)
            for chunk in self.chunks:
                if self.beat_s and request.cancellation.wait(self.beat_s):
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
            if request.cancellation.wait(_GATE_POLL_S):
                raise Cancelled
            if time.monotonic() >= give_up:
                raise DeadlineExceeded

    @contextmanager
    def choose(self) -> Generator[FakeBackend]:
        """The pool of one that is this backend itself."""
        yield self

    def count_up(self) -> int:
        return self.up

    def has_room(self, _refusal: GlmServeError, _asked: int) -> bool:
        return False

    def has_another(self) -> bool:
        return self.is_ready

    def models_ready(self) -> bool:
        return self.is_ready

    def close(self) -> None:
        """Nothing to give back."""
