"""Asks the engine for a place before a request is tokenised and decoded, as long as places are scarce."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

import numpy as np

from gateway.deadline import Deadline
from gateway.triton.backend import BackendPool, Cancellation, GenerateRequest
from glmserve.errors import GlmServeError, Overloaded
from glmserve.sampling_parameters import Sampling

_SCARCE_FOR_S = 10.0
"""Places count as scarce for so long after a refusal or a wait; to ask at other times would cost a millisecond."""
_WAITED_MS = 50.0
"""An answer that waited longer for its slot says that there are few."""


class PlaceCheck:
    """Told of refusals and waits; shared between threads."""

    def __init__(self, pool: BackendPool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._scarce_until_s = float("-inf")

    def check(self, tokens: int, max_tokens: int, answers: int, deadline: Deadline, cancellation: Cancellation) -> None:
        """Raises Overloaded, as the engine words it, where it would refuse to begin so many answers now.

        Asks nobody as long as there seem to be places. Any other failure is left to whoever asks for the answer.
        """
        if self._clock() >= self._scarce_until_s:
            return
        try:
            question = GenerateRequest(
                "",
                np.zeros(tokens, np.int64),
                None,
                (),
                Sampling(max_tokens=max_tokens),
                deadline.left_s(),
                answers=-answers,
                cancellation=cancellation,
            )
            with self.watching(), self._pool.choose() as backend, closing(backend.generate(question)) as said:
                for _ in said:
                    pass
        except Overloaded:
            raise
        except GlmServeError:
            return

    @contextmanager
    def watching(self) -> Generator[None]:
        """A block in which the engine is asked for an answer, and may refuse."""
        try:
            yield
        except Overloaded:
            self._note()
            raise

    def note_wait(self, queue_ms: float) -> None:
        """An answer has waited so long for its slot."""
        if queue_ms > _WAITED_MS:
            self._note()

    def _note(self) -> None:
        self._scarce_until_s = self._clock() + _SCARCE_FOR_S
