"""Asks the engine for a place before a request is tokenised and decoded, as long as places are scarce."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

import numpy as np

from gateway.chat.retry import where_there_is_room
from gateway.deadline import Deadline
from gateway.triton.backend import BackendPool, Cancellation, GenerateRequest
from glmserve.errors import GlmServeError, InvalidInput, Overloaded
from glmserve.limits import MAX_ANSWERS
from glmserve.sampling_parameters import Sampling

_SCARCE_FOR_S = 10.0
"""Places count as scarce for so long after a refusal or a wait, and then until somebody has found one; to ask at other
times would cost a millisecond."""
_WAITED_MS = 50.0
"""An answer that waited longer for its slot says that there are few."""


class PlaceCheck:
    """Told of refusals and waits; shared between threads."""

    def __init__(self, pool: BackendPool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._noted_s = float("-inf")
        self._has_room = True

    def check(self, tokens: int, max_tokens: int, answers: int, deadline: Deadline, cancellation: Cancellation) -> None:
        """Raises Overloaded, as the engine words it, where it would refuse to begin so many answers now.

        Asks nobody as long as there seem to be places. Any other failure is left to whoever asks for the answer.
        """
        if self._has_room and self._clock() >= self._noted_s + _SCARCE_FOR_S:
            return
        try:
            self._ask(tokens, max_tokens, answers, deadline, cancellation)
        except Overloaded:
            raise
        except GlmServeError:
            return

    def check_prompts(
        self, prompts: int, answers_each: int, max_tokens: int, deadline: Deadline, cancellation: Cancellation
    ) -> None:
        """Raises InvalidInput for several prompts with more answers together than the engine ever has places for.

        Asks nobody about as many as one prompt may have. Whether there are places now, each prompt finds out by itself.
        """
        if prompts * answers_each <= MAX_ANSWERS:
            return
        answers = answers_each * math.ceil(prompts / max(1, self._pool.count_up()))  # the pool spreads them
        try:
            self._ask(1, max_tokens, answers, deadline, cancellation)
        except InvalidInput as error:
            if answers <= MAX_ANSWERS or error.field == "prompt":  # else an engine that cannot be asked for so many
                raise InvalidInput(error.message, "prompt") from None
        except GlmServeError:
            return

    def _ask(self, tokens: int, max_tokens: int, answers: int, deadline: Deadline, cancellation: Cancellation) -> None:
        with self.watching():
            where_there_is_room(
                lambda: self._ask_one(tokens, max_tokens, answers, deadline, cancellation), self._pool.has_room
            )
        self._has_room = True

    def _ask_one(
        self, tokens: int, max_tokens: int, answers: int, deadline: Deadline, cancellation: Cancellation
    ) -> None:
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
        with self._pool.choose() as backend, closing(backend.generate(question)) as said:
            for _ in said:
                pass

    @contextmanager
    def watching(self) -> Generator[None]:
        """A block in which the engine is asked for an answer, and may refuse."""
        try:
            yield
        except Overloaded:
            self._note()
            raise

    def note_wait(self, queue_ms: float, took_s: float) -> None:
        """An answer that took so long from beginning to end has waited for its slot, or has hardly waited."""
        if queue_ms > _WAITED_MS:
            self._note()
        elif self._clock() - took_s > self._noted_s:
            self._has_room = True

    def _note(self) -> None:
        self._noted_s, self._has_room = self._clock(), False
