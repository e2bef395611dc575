"""The engine of a build inside this very process: no Triton, no gRPC, no gateway, no HTTP."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench.servers.processes import engine_environment, environment
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.tensors import tensors_of
from glmserve.build.manifest import decoder_in
from glmserve.contract import Finish
from glmserve.engine.metrics import Metric
from glmserve.engine.request import Done, Event, Failed, Tokens
from glmserve.engine.server import EngineServer
from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays

EVENT_TIMEOUT_S = 600.0
_NEVER = 1 << 30

Publish = Callable[[Metric, float], None]


class Listener:
    """Hears one request's events: when each token came, and how the request ended (`done`, or an error's code).

    `reached` is set once `mark` tokens have come, or the request has ended.
    """

    def __init__(self, mark: int = _NEVER) -> None:
        self._mark = mark
        self.times: list[float] = []
        self.ending = ""
        self.reached = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if self.ended.is_set():
            self.ending = "an event after the last"
            return
        if isinstance(event, Tokens):
            self.times += [time.perf_counter()] * len(event.tokens)
        if event.is_last:
            self.ending = event.error.code if isinstance(event, Failed) else "done"
            self.ended.set()
        if event.is_last or len(self.times) >= self._mark:
            self.reached.set()


class BareEngine:
    """A `gateway.triton.backend.Backend` that hands requests straight to the engine; shared between threads."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server

    def submit(self, request: GenerateRequest, emit: Callable[[Event], None], is_cancelled: Callable[[], bool]) -> None:
        """Starts a request; `emit` gets its events in order, where Triton would send them."""

        def send(events: list[Event]) -> None:
            for event in events:
                emit(event)

        self._server.accept({tensor.name: values for tensor, values in tensors_of(request)}, send, is_cancelled)

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        cancelled = threading.Event()
        self.submit(request, events.put, cancelled.is_set)
        try:
            is_last = False
            while not is_last:
                event = events.get(timeout=EVENT_TIMEOUT_S)
                is_last = event.is_last
                yield _chunk(event)
        except queue.Empty:
            raise BackendDown from None
        finally:
            cancelled.set()

    def models_ready(self) -> bool:
        return True

    def close(self) -> None:
        self._server.close()


@contextmanager
def bare_engine(
    build: Path,
    threads: int,
    publish: Publish = lambda _metric, _amount: None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Generator[BareEngine]:
    """A running engine; `more` are engine settings besides those of every measurement."""
    with environment(engine_environment(threads) | dict(more)):
        engine = BareEngine(EngineServer.open(decoder_in(build).parent, _no_triton, publish))
    try:
        yield engine
    finally:
        engine.close()


def _no_triton(_arrays: VisionArrays) -> np.ndarray:
    raise BackendDown("A bare engine has no Triton that could encode an image.")


def _chunk(event: Event) -> Chunk:
    if isinstance(event, Failed):
        raise event.error
    tokens = tuple(event.tokens) if isinstance(event, Tokens) else ()
    return Chunk(tokens, event.finish if isinstance(event, Done) else Finish.RUNNING)
