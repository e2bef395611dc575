"""What the gateway asks of whoever generates tokens: one Triton, or a pool of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.triton.stream_buffer import StreamBuffer
from glmserve.contract import Finish
from glmserve.errors import GlmServeError
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import Sampling

READY_TIMEOUT_S = 8.0
"""What a Triton may take to say whether a model is loaded; a slow one is not down."""
Ranked = tuple[tuple[int, float], ...]
"""A token's id and log-probability, then those of the likeliest tokens in its place."""


class Cancellation:
    """Tells, once, that nobody waits for an answer any more; any thread may cancel, and then runs the callbacks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._event: threading.Event | None = None  # weighs a kilobyte, and hardly anybody waits for it
        self.is_cancelled = False

    def wait(self, timeout_s: float) -> bool:
        """Whether it is cancelled by then."""
        with self._lock:
            if self.is_cancelled:
                return True
            if self._event is None:
                self._event = threading.Event()
        return self._event.wait(timeout_s)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Runs `callback` on the thread that cancels, or now if that has happened."""
        with self._lock:
            if not self.is_cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Cancels; a second time changes nothing."""
        with self._lock:
            self.is_cancelled = True
            if self._event is not None:
                self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


@dataclass(frozen=True)
class GenerateRequest:
    """One answer to generate; `deadline_s` is the time left when it is handed over.

    A negative number of `answers` only asks whether there are places for them, and is answered or refused at once.
    """

    request_id: str
    input_ids: NDArray[np.int64]  # i64 [tokens]
    patches: NDArray[np.uint8] | None  # u8 [patches, patch_bytes]
    grids: tuple[Grid, ...]
    sampling: Sampling
    deadline_s: float
    grammar: bytes = b""  # packed AnswerRules
    cache_scope: int = 0
    cache_salt: int = 0
    answers: int = 1
    traceparent: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation, compare=False)
    stream_buffer: StreamBuffer | None = field(
        default=None, compare=False
    )  # where a backend that can puts what comes of a stream


@dataclass(frozen=True)
class Chunk:
    """One message of an answer; any `finish` but RUNNING marks the last.

    Where several answers are wanted, `choices` says of which each token is, and `finishes` why each has ended; it is
    empty in a message with which none ends. `stop_tokens` are the stop tokens that ended the answers, -1 for those
    that none did, and empty where none did any.
    """

    tokens: tuple[int, ...]
    finish: Finish
    timings_ms: tuple[float, ...] = ()
    cached_tokens: int = 0
    logprobs: tuple[Ranked, ...] = ()  # one for each token, where they were asked for
    choices: tuple[int, ...] = ()
    finishes: tuple[Finish, ...] = ()
    stop_tokens: tuple[int, ...] = ()


class Backend(Protocol):
    """One Triton that generates answers; shared between threads, and closed by whoever made it."""

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


class BackendPool(Protocol):
    """All Tritons behind this gateway; shared between threads, and closed by whoever made it."""

    def count_up(self) -> int:
        """How many Tritons have not died, as far as is known without asking a model; answers at once."""
        ...

    def choose(self) -> AbstractContextManager[Backend]:
        """The Triton for one answer, which is read inside the block; raises BackendDown when there is none."""
        ...

    def has_another(self) -> bool:
        """After a BackendDown: whether some Triton is not known to be down, so that trying again may help."""
        ...

    def has_room(self, refusal: GlmServeError, asked: int) -> bool:
        """After a refusal for want of places, the last of so many in a row: whether another Triton may have some."""
        ...

    def models_ready(self) -> bool:
        """Whether one Triton at least has every model loaded; answers within seconds and does not raise."""
        ...

    def close(self) -> None: ...
