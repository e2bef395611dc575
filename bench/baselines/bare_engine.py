"""The engine of a build inside this very process: no Triton, no gRPC, no gateway, no HTTP."""

from __future__ import annotations

import queue
import threading
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
from glmserve.engine.triton.tensors import Tensors
from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays

_EVENT_TIMEOUT_S = 600.0

Publish = Callable[[Metric, float], None]


class BareEngine:
    """A `gateway.triton.backend.Backend` that hands requests straight to the engine; shared between threads."""

    def __init__(self, serving: EngineServer) -> None:
        self._serving = serving

    def submit(self, request: GenerateRequest, emit: Callable[[Event], None], is_cancelled: Callable[[], bool]) -> None:
        """Starts a request; `emit` hears its events in order, where Triton would send them."""

        def send(events: list[Event]) -> None:
            for event in events:
                emit(event)

        self._serving.accept(_tensors(request), send, is_cancelled)

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        cancelled = threading.Event()
        self.submit(request, events.put, cancelled.is_set)
        try:
            is_last = False
            while not is_last:
                event = events.get(timeout=_EVENT_TIMEOUT_S)
                is_last = event.is_last
                yield _chunk(event)
        except queue.Empty:
            raise BackendDown from None
        finally:
            cancelled.set()

    def models_ready(self) -> bool:
        return True

    def close(self) -> None:
        self._serving.close()


@contextmanager
def bare_engine(
    build: Path,
    threads: int,
    publish: Publish = lambda _metric, _amount: None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Generator[BareEngine]:
    """A running engine; `more` are engine settings other than the measurements' own."""
    with environment(engine_environment(threads) | dict(more)):
        engine = BareEngine(EngineServer.open(decoder_in(build).parent, _no_triton, publish))
    try:
        yield engine
    finally:
        engine.close()


def _no_triton(_arrays: VisionArrays) -> np.ndarray:
    raise BackendDown("Here is no Triton whose backend could read a picture.")


def _tensors(request: GenerateRequest) -> Tensors:
    """What Triton would hand the engine, as `contract.DECODER_INPUTS` names it."""
    return {tensor.name: values for tensor, values in tensors_of(request)}


def _chunk(event: Event) -> Chunk:
    if isinstance(event, Failed):
        raise event.error
    tokens = tuple(event.tokens) if isinstance(event, Tokens) else ()
    return Chunk(tokens, event.finish if isinstance(event, Done) else Finish.RUNNING)
