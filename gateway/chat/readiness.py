"""Ready means proved: the models are loaded, and they have just answered the canary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gateway.chat.service import ChatService, RequestContext
from gateway.deadline import Deadline
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.triton.backend import BackendPool, Cancellation
from glmserve.build.canary import Canary
from glmserve.errors import GlmServeError, Overloaded
from glmserve.sampling_parameters import Sampling

CANARY_TOKENS = 64


def canary_question(canary: Canary) -> Conversation:
    """The canary as a greedy request."""
    greedy = Sampling(max_tokens=CANARY_TOKENS)
    return Conversation((Turn("user", (SentImage(canary.image), canary.prompt)),), greedy)


class Readiness:
    """Knows whether the service can answer; any thread may ask, and one at a time asks the canary."""

    def __init__(
        self,
        service: ChatService,
        pool: BackendPool,
        canary: Canary,
        timeout_s: float,
        cache_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._pool = pool
        self._question = canary_question(canary)
        self._answer = canary.answer
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._clock = clock
        self._lock = threading.Lock()  # held by the thread that checks
        self._fault: str | None = None
        self._checked_at_s = float("-inf")

    def fault(self) -> str | None:
        """A sentence saying why no answer can be given, or None when all is well."""
        if not self._lock.acquire(timeout=self._timeout_s):
            return "The check is still running."
        try:
            if self._clock() - self._checked_at_s >= self._cache_s:
                self._fault = self._check()
                self._checked_at_s = self._clock()
            return self._fault
        finally:
            self._lock.release()

    def _check(self) -> str | None:
        if not self._pool.models_ready():
            return "The models are not loaded."
        try:
            deadline = Deadline.after(self._timeout_s)
            cancellation = Cancellation()  # nobody cancels the canary
            prepared = self._service.prepare(self._question, deadline, cancellation)
            answer = self._service.answer(prepared, RequestContext("canary", deadline, cancellation))
        except Overloaded:
            return None  # a full engine is alive, and taking it out of rotation would only make the others fuller
        except GlmServeError as error:
            return f"The canary picture was not answered ({error.code})."
        if self._answer is not None and answer.content != self._answer.strip():
            return "The canary picture was answered wrongly."
        return None
