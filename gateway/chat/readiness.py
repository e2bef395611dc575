"""Ready means proved: the models are loaded, and they have just answered the canary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from gateway.chat.generation import Answer
from gateway.chat.service import ChatService, RequestContext
from gateway.deadline import Deadline
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.settings import CANARY_TIMEOUT_VARIABLE
from gateway.triton.backend import BackendPool, Cancellation
from glmserve.build.canary import Canary
from glmserve.errors import DeadlineExceeded, GlmServeError, Overloaded
from glmserve.limits import FIRST_CANARY_S
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling

_MOST_TOKENS = 64
_UNKNOWN_TOKENS = 2
"""Where no answer is the right one, a decode step is proof enough."""
_BUSY_FOR_S = 60.0
"""So long after the last proof, a canary that waits its turn in vain is excused by the answers of others."""
_PATIENCE = 4.0
"""A canary may take so many times as long as the last one that was answered."""
_GRACE_S = 0.5
"""Whoever asks waits so much longer than a canary whose time is over, to hear what became of it."""


def canary_question(canary: Canary, tokenizer: Tokenizer) -> Conversation:
    """The canary as a greedy request for little more than its answer."""
    most = _UNKNOWN_TOKENS
    if canary.answer is not None:
        most = min(_MOST_TOKENS, 8 + 2 * len(tokenizer.encode_plain(canary.answer)))
    greedy = Sampling(max_tokens=most)
    return Conversation((Turn("user", (SentImage(canary.image), canary.prompt)),), greedy)


class Readiness:
    """Knows whether the service can answer; any thread may ask, and one of its own asks the canary.

    Nobody knows beforehand how long this machine takes, so the first canary has `first_s`. It shows how long the
    next ones may take: `timeout_s`, or a few times as long as the last.
    """

    def __init__(
        self,
        service: ChatService,
        pool: BackendPool,
        canary: Canary,
        timeout_s: float,
        cache_s: float,
        clock: Callable[[], float] = time.monotonic,
        first_s: float = FIRST_CANARY_S,
        on_pace: Callable[[float, float], None] = lambda _token_s, _prefill_s: None,
    ) -> None:
        """`on_pace` hears of each canary's answer: seconds a token, and before the first."""
        self._service = service
        self._pool = pool
        self._question = canary_question(canary, service.tokenizer)
        self._answer = canary.answer
        self._timeout_s = timeout_s
        self._first_s = first_s
        self._on_pace = on_pace
        self._cache_s = cache_s
        self._clock = clock
        self._changed = threading.Condition()
        self._is_checking = False
        self._fault: str | None = None
        self._checked_at_s = float("-inf")
        self._proved_at_s = float("-inf")
        self._took_s: float | None = None
        """What the last canary that was answered took."""

    def fault(self, wait_s: float | None = None) -> str | None:
        """A sentence saying why no answer can be given, or None when all is well.

        Waits for a check that is under way, but no longer than `wait_s`, by default little more than `timeout_s`; from
        then on the last finding holds until that check ends.
        """
        with self._changed:
            if not self._is_checking and self._clock() - self._checked_at_s >= self._cache_s:
                self._is_checking = True
                threading.Thread(target=self._find, name="canary", daemon=True).start()
            patience_s = self._timeout_s + _GRACE_S if wait_s is None else wait_s
            if not self._changed.wait_for(lambda: not self._is_checking, patience_s) and self._took_s is None:
                return (
                    f"The canary image has not been answered within {self._timeout_s:g} s. The first answer shows "
                    "how fast this machine is, and may take minutes on a slow one."
                )
            if self._fault is None and self._pool.count_up() == 0:
                return "No Triton is up."  # at once, and not when the last finding has become too old
            return self._fault

    def _find(self) -> None:
        fault: str | None = "The check failed; the log says why."
        try:
            fault = self._check()
        except Exception:  # this thread's outer edge
            structlog.get_logger().exception("readiness_check_failed")
        finally:
            with self._changed:
                self._fault, self._checked_at_s, self._is_checking = fault, self._clock(), False
                self._changed.notify_all()

    def _patience_s(self) -> float:
        if self._took_s is None:
            return max(self._first_s, self._timeout_s)
        return max(self._timeout_s, _PATIENCE * self._took_s)

    def _check(self) -> str | None:
        if not self._pool.models_ready():
            return "The models are not loaded."
        began_s, patience_s = time.monotonic(), self._patience_s()
        deadline, cancellation = Deadline.after(patience_s), Cancellation()  # nobody cancels the canary
        try:
            prepared = self._service.prepare(self._question, Deadline.after(self._timeout_s), cancellation)
        except (Overloaded, DeadlineExceeded):
            return f"No image decoder was free within {self._timeout_s:g} s."
        except GlmServeError as error:
            return f"The canary image cannot be decoded ({error.code})."
        try:
            answer = self._service.answer(prepared, RequestContext("canary", deadline, cancellation, is_probe=True))
        except Overloaded:
            return None  # a full engine is alive, and taking it out of rotation would only make the others fuller
        except DeadlineExceeded as error:
            return None if self._is_busy(began_s) else _unanswered(error, patience_s)
        except GlmServeError as error:
            return _unanswered(error)
        if self._answer is not None and answer.content != self._answer.strip():
            return "The canary image was answered wrongly."
        self._tell_pace(answer)
        self._proved_at_s = self._clock()
        self._took_s = time.monotonic() - began_s
        return None

    def _tell_pace(self, answer: Answer) -> None:
        timings = answer.timings or {}
        if answer.completion_tokens and "decode_ms" in timings:
            prefill_ms = timings["vision_ms"] + timings["prefill_ms"]
            self._on_pace(timings["decode_ms"] / answer.completion_tokens / 1000, prefill_ms / 1000)

    def _is_busy(self, since_s: float) -> bool:
        """Whether others were answered while the canary waited, which for a while excuses that it was not."""
        return self._service.heard_at_s > since_s and self._clock() - self._proved_at_s <= _BUSY_FOR_S


def _unanswered(error: GlmServeError, patience_s: float | None = None) -> str:
    within = "" if patience_s is None else f" within {patience_s:.3g} s; more is allowed by {CANARY_TIMEOUT_VARIABLE}"
    return f"The canary image was not answered ({error.code}{within})."
