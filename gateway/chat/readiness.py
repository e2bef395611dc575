"""Ready means proved: the models are loaded and a canary picture went all the way through."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.chat.generation import whole
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.triton.backend import Backend, Cancellation
from glmserve.build.manifest import CANARY_FOLDER
from glmserve.errors import BadArtifact, GlmServeError, Overloaded
from glmserve.sampling_parameters import Sampling

CANARY_TOKENS = 64


@dataclass(frozen=True)
class Canary:
    """A question asked greedily and, where it is known, the only right answer."""

    question: Conversation
    answer: str | None

    @staticmethod
    def read(build: Path) -> Canary:
        """The canary of a build; raises BadArtifact when it has none."""
        folder = build / CANARY_FOLDER
        try:
            values = json.loads((folder / "canary.json").read_text("utf-8"))
            prompt, answer = values["prompt"], values["answer"]
            image = SentImage((folder / "image.png").read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            raise BadArtifact(f"Build {build} has no readable canary.") from None
        if not isinstance(prompt, str) or not isinstance(answer, str | None):
            raise BadArtifact(f"The canary of build {build} needs a prompt, and an answer that is a string or null.")
        greedy = Sampling(max_tokens=CANARY_TOKENS)
        return Canary(Conversation((Turn("user", (image, prompt)),), greedy), answer)


class Readiness:
    """Knows whether answers can be given; any number of threads may ask, one of them at a time finds out."""

    def __init__(
        self,
        service: ChatService,
        backend: Backend,
        canary: Canary,
        timeout_s: float,
        cache_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._backend = backend
        self._canary = canary
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._clock = clock
        self._lock = threading.Lock()  # held by the thread that asks the canary
        self._fault: str | None = None
        self._found_at = float("-inf")

    def fault(self) -> str | None:
        """A sentence saying why no answer can be given, or None when all is well."""
        if not self._lock.acquire(timeout=self._timeout_s):
            return "The check is still running."
        try:
            if self._clock() - self._found_at >= self._cache_s:
                self._fault = self._find()
                self._found_at = self._clock()
            return self._fault
        finally:
            self._lock.release()

    def _find(self) -> str | None:
        if not self._backend.models_ready():
            return "The models are not loaded."
        try:
            deadline = Deadline.after(self._timeout_s)
            prepared = self._service.prepare(self._canary.question, deadline, Cancellation())
            answer = whole(self._service.stream(prepared, "canary", deadline, Cancellation()))
        except Overloaded:
            return None  # full, which takes a living engine: one less in the rotation would only make it worse
        except GlmServeError as error:
            return f"The canary picture was not answered ({error.code})."
        if self._canary.answer is not None and answer.content != self._canary.answer.strip():
            return "The canary picture was answered wrongly."
        return None
