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
from glmserve.errors import DeadlineExceeded, GlmServeError, Overloaded
from glmserve.sampling_parameters import Sampling

CANARY_TOKENS = 64
_BUSY_FOR_S = 60.0
"""So long after the last proof, a canary that waits its turn in vain is excused by the answers of others."""


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
        self._proved_at_s = float("-inf")

    def fault(self) -> str | None:
        """A sentence saying why no answer can be given, or None when all is well."""
        if not self._lock.acquire(timeout=self._timeout_s):
            return "The check is still running."
        try:
            if self._clock() - self._checked_at_s >= self._cache_s:
                self._fault = self._check()
                self._checked_at_s = self._clock()
            if self._fault is None and self._pool.count_up() == 0:
                return "No Triton is up."  # at once, and not when the last finding has become too old
            return self._fault
        finally:
            self._lock.release()

    def _check(self) -> str | None:
        if not self._pool.models_ready():
            return "The models are not loaded."
        began_s = time.monotonic()
        deadline, cancellation = Deadline.after(self._timeout_s), Cancellation()  # nobody cancels the canary
        try:
            prepared = self._service.prepare(self._question, deadline, cancellation)
        except (Overloaded, DeadlineExceeded):
            return f"No image decoder was free within {self._timeout_s:g} s."
        except GlmServeError as error:
            return f"The canary picture cannot be decoded ({error.code})."
        try:
            answer = self._service.answer(prepared, RequestContext("canary", deadline, cancellation, is_probe=True))
        except Overloaded:
            return None  # a full engine is alive, and taking it out of rotation would only make the others fuller
        except DeadlineExceeded as error:
            return None if self._is_busy(began_s) else _unanswered(error)
        except GlmServeError as error:
            return _unanswered(error)
        if self._answer is not None and answer.content != self._answer.strip():
            return "The canary picture was answered wrongly."
        self._proved_at_s = self._clock()
        return None

    def _is_busy(self, since_s: float) -> bool:
        """Whether others were answered while the canary waited, which for a while excuses that it was not."""
        return self._service.heard_at_s > since_s and self._clock() - self._proved_at_s <= _BUSY_FOR_S


def _unanswered(error: GlmServeError) -> str:
    return f"The canary picture was not answered ({error.code})."
