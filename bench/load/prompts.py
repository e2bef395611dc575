"""The clients' questions: about spots of colour, each with an image and words of its own."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from glmserve.model.tokenizer import Tokenizer

SQUARE = (224, 224)
"""64 image tokens."""
PHOTO = (640, 480)
"""391 image tokens."""
# fmt: off
_WORDS = (
    "How", "many", "red", "blue", "green", "shapes", "there", "picture", "left", "circle", "star", "above", "which",
)
# fmt: on
_SPOTS = 12


@dataclass(frozen=True)
class Question:
    """An image file and a prompt; every server gets the same."""

    image_file: bytes
    prompt: str

    @cached_property
    def image(self) -> str:
        """The image in base64."""
        return base64.b64encode(self.image_file).decode()

    def body(self, max_tokens: int, stream: bool = False) -> bytes:
        """The body of a greedy POST /v1/chat/vision."""
        asked = {"image": self.image, "prompt": self.prompt, "max_tokens": max_tokens, "temperature": 0}
        return json.dumps(asked | ({"stream": True} if stream else {})).encode()


class QuestionMaker:
    """Makes questions from a seed; the same seed makes the same questions."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = np.random.default_rng(seed)

    def question(self, size: tuple[int, int] = SQUARE, prompt_tokens: int = 52) -> Question:
        return Question(self.image(size), self.prompt(prompt_tokens))

    def questions(self, count: int, size: tuple[int, int] = SQUARE) -> list[Question]:
        return [self.question(size) for _ in range(count)]

    def image(self, size: tuple[int, int]) -> bytes:
        """A JPEG of soft spots of colour."""
        spots = self._random.integers(0, 256, (_SPOTS, _SPOTS, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return file.getvalue()

    def prompt(self, tokens: int) -> str:
        """Random words that make about this many tokens."""
        text = ""
        while len(self._tokenizer.encode_plain(text)) < tokens:
            text += f" {_WORDS[self._random.integers(len(_WORDS))]}"
        return text.strip() + "?"
