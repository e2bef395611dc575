"""Questions made into requests as the gateway does it, but in this process."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from bench.load.closed_loop import NEW_TOKENS
from bench.load.prompts import Question
from gateway.triton.backend import GenerateRequest
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, patches_of
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
        self._prompts = PromptBuilder.read(folder, self.tokenizer, checkpoint.image_token_id, self._rules.merge_size)

    def request(self, question: Question, max_tokens: int = NEW_TOKENS) -> GenerateRequest:
        """A greedy request: base64 undone, the image decoded and cut into patches, the prompt tokenised."""
        return self.prepared(base64.b64decode(question.image), question.prompt, max_tokens)

    def prepared(self, file: bytes | None, prompt: str, max_tokens: int) -> GenerateRequest:
        """The same from an image file, or from text alone."""
        if file is None:
            return _greedy(self._prompts.build([Message("user", (prompt,))], [], thinking=False), max_tokens)
        patches, grid = patches_of(Image.open(io.BytesIO(file)).convert("RGB"), self._rules)
        ids = self._prompts.build([Message("user", (ImagePart(), prompt))], [grid], thinking=False)
        return _greedy(ids, max_tokens, patches, (grid,))

    def text(self, text: str, prompt_tokens: int, max_tokens: int) -> GenerateRequest:
        """A greedy request of exactly so many tokens of text, without a template."""
        return _greedy(np.asarray(self.tokenizer.encode_plain(text)[:prompt_tokens], np.int64), max_tokens)


def _greedy(
    ids: np.ndarray, max_tokens: int, patches: np.ndarray | None = None, grids: tuple[Grid, ...] = ()
) -> GenerateRequest:
    return GenerateRequest("bench", ids, patches, grids, Sampling(max_tokens=max_tokens), _DEADLINE_S)
