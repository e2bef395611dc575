"""A gateway for gunicorn whose model says what it is told to: whatever stands between [[ and ]] in the prompt.

A prompt with the word Hush in it is answered only after a long silence, as if a large image were being read.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from flask import Flask

from gateway.app import create_app
from gateway.resources import BACKEND
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk, GenerateRequest
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.contract import Finish
from glmserve.errors import Cancelled, GlmServeError
from glmserve.model.tokenizer import Tokenizer

BEAT_S = 0.005
HUSH_S = 8.0


class EchoBackend:
    """Answers as the prompt says, a token a beat; control tokens written there become real ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        prompt = self._tokenizer.decode(request.input_ids.tolist())
        answer = prompt.rpartition("[[")[2].partition("]]")[0] if "[[" in prompt else "Hello."
        if "Hush" in prompt and request.cancellation.wait(HUSH_S):
            raise Cancelled
        tokens = self._tokenizer.encode(answer)
        for token in tokens[: request.sampling.max_tokens]:
            if request.cancellation.wait(BEAT_S):
                raise Cancelled
            ranked = ((token, -0.25), (token, -0.25))[: 1 + request.sampling.top_logprobs]
            yield Chunk((token,), Finish.RUNNING, logprobs=(ranked,) if request.sampling.logprobs else ())
        is_cut = len(tokens) > request.sampling.max_tokens
        yield Chunk((), Finish.LENGTH if is_cut else Finish.STOP, (1.0, 2.0, 3.0, 4.0), 5)

    @contextmanager
    def choose(self) -> Generator[EchoBackend]:
        yield self

    def count_up(self) -> int:
        return 1

    def has_room(self, _refusal: GlmServeError, _asked: int) -> bool:
        return False

    def has_another(self) -> bool:
        return True

    def models_ready(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to give back."""


def application() -> Flask:
    settings = GatewaySettings.read()
    backend = EchoBackend(Tokenizer.read(settings.build / CHECKPOINT_FOLDER))
    app = create_app(settings, backend)
    app.extensions[BACKEND] = backend
    return app
