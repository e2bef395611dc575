"""A question put to a backend as the gateway does it, but in this process, with the time of its first token noted."""

from __future__ import annotations

import base64
import io
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.load.closed_loop import NEW_TOKENS
from bench.load.prompts import Question
from gateway.triton.backend import Backend, GenerateRequest
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import patches_of
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling

_DEADLINE_S = 600.0


class Preparer:
    """Turns questions into requests with the rules of one build; shared between threads."""

    def __init__(self, build: Path) -> None:
        folder = build / CHECKPOINT_FOLDER
        checkpoint = Checkpoint.read(folder)
        self.tokenizer = Tokenizer.read(folder)
        self._rules = checkpoint.images
        self._prompts = PromptBuilder.read(
            folder, self.tokenizer, checkpoint.image_token_id, checkpoint.images.merge_size
        )

    def request(self, question: Question, max_tokens: int = NEW_TOKENS) -> GenerateRequest:
        """A greedy request: base64 undone, the picture decoded and cut into patches, the prompt tokenised."""
        return self.prepared(base64.b64decode(question.image), question.prompt, max_tokens)

    def prepared(self, file: bytes | None, prompt: str, max_tokens: int) -> GenerateRequest:
        """The same of a picture's file, or of text alone."""
        patches, grids = None, []
        if file is not None:
            image = Image.open(io.BytesIO(file))
            patches, grid = patches_of(image.convert("RGB"), self._rules)
            grids.append(grid)
        messages = [Message("user", (*(ImagePart() for _ in grids), prompt))]
        return GenerateRequest(
            request_id="bench",
            input_ids=self._prompts.build(messages, grids, thinking=False),
            patches=patches,
            grids=tuple(grids),
            sampling=Sampling(max_tokens=max_tokens),
            deadline_s=_DEADLINE_S,
        )


@dataclass
class Generated:
    """How many tokens an answer had, and when (by `perf_counter`) the first of them came."""

    tokens: int = 0
    first_token_at: float = 0.0


def generate(backend: Backend, request: GenerateRequest) -> Generated:
    """One answer, read to its end."""
    generated = Generated()
    with closing(backend.generate(request)) as chunks:
        for chunk in chunks:
            if chunk.tokens and not generated.tokens:
                generated.first_token_at = time.perf_counter()
            generated.tokens += len(chunk.tokens)
    return generated


def first_token_s(preparer: Preparer, backend: Backend, question: Question, max_tokens: int = NEW_TOKENS) -> float:
    """Seconds from the question to its first token; the answer is read to its end."""
    began = time.perf_counter()
    return generate(backend, preparer.request(question, max_tokens)).first_token_at - began
