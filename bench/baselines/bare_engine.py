"""The engine of a build inside this very process: no Triton, no gRPC, no gateway, no HTTP."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from unittest.mock import patch

import numpy as np

from bench.load.closed_loop import at_once
from bench.servers.processes import engine_variables
from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import tensors_of
from glmserve.build.manifest import decoder_in
from glmserve.engine.metrics import Metric
from glmserve.engine.request import Event, Failed, Tokens
from glmserve.engine.server import EngineServer
from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays

_ANSWER_TIMEOUT_S = 600.0
NEVER = 1 << 30


class Listener:
    """Hears one request's events: its tokens, when each came, and how the request ended (`done`, or an error's code).

    `reached` is set once `mark` tokens have come, or the request has ended.
    """

    def __init__(self, mark: int = NEVER) -> None:
        self._mark = mark
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.ending = ""
        self.reached = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if self.ended.is_set():
            self.ending = "an event after the last"
            return
        if isinstance(event, Tokens):
            self.tokens += event.tokens
            self.times += [time.perf_counter()] * len(event.tokens)
        if event.is_last:
            self.ending = event.error.code if isinstance(event, Failed) else "done"
            self.ended.set()
        if event.is_last or len(self.times) >= self._mark:
            self.reached.set()


class BareEngine:
    """Hands requests straight to the engine; shared between threads."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server

    def submit(self, request: GenerateRequest, emit: Callable[[Event], None], is_cancelled: Callable[[], bool]) -> None:
        """Starts a request; `emit` gets its events in order, where Triton would send them."""

        def send(events: list[Event]) -> None:
            for event in events:
                emit(event)

        self._server.accept({tensor.name: values for tensor, values in tensors_of(request)}, send, is_cancelled)

    def answer(self, request: GenerateRequest) -> Listener:
        """A whole answer; raises RuntimeError where there is none."""
        listener = Listener()
        self.submit(request, listener, lambda: False)
        if not listener.ended.wait(_ANSWER_TIMEOUT_S) or listener.ending != "done":
            raise RuntimeError(f"The engine's answer ended with: {listener.ending or 'no end in time'}.")
        return listener

    def tokens_per_s(self, requests: list[GenerateRequest], clock: Callable[[], float] = time.perf_counter) -> float:
        """Tokens a second of all these requests at once."""
        began = clock()
        answers = at_once(self.answer, requests, len(requests))
        return sum(len(answer.tokens) for answer in answers) / (clock() - began)


@contextmanager
def bare_engine(
    build: Path,
    threads: int,
    publish: Callable[[Metric, float], None] = lambda _metric, _amount: None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Generator[BareEngine]:
    """A running engine; `more` are engine settings besides those of every measurement."""
    with patch.dict(os.environ, engine_variables(threads) | dict(more)):
        server = EngineServer.open(decoder_in(build).parent, _no_triton, publish)
    try:
        yield BareEngine(server)
    finally:
        server.close()


def _no_triton(_arrays: VisionArrays) -> np.ndarray:
    raise BackendDown("A bare engine has no Triton that could encode an image.")
