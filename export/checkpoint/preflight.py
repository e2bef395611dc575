"""Tries a checkpoint's tokenizer and chat template on a question about an image, before anything is built of it."""

from __future__ import annotations

from pathlib import Path

from export.errors import NoTokenizer
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import PROCESSOR_FILES, Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.tokenizer import Tokenizer


def try_prompt(folder: Path, checkpoint: Checkpoint) -> None:
    """Raises NoTokenizer for a file that is missing or broken, and for files of different models."""
    for name in PROCESSOR_FILES:
        if not (folder / name).is_file():
            raise NoTokenizer(f"The checkpoint lacks {name}.")
    merge_size, image_token = checkpoint.vision.merge_size, checkpoint.image_token_id
    try:
        tokenizer = Tokenizer.read(folder)
        prompts = PromptBuilder.read(folder, tokenizer, image_token, merge_size)
    except BadArtifact as error:
        raise NoTokenizer(error.message) from None
    largest, vocabulary = tokenizer.largest_id, checkpoint.text.vocabulary
    if largest >= vocabulary:
        raise NoTokenizer(f"tokenizer.json has a token {largest}, config.json a vocabulary of only {vocabulary}.")
    question = Message("user", (ImagePart(), "What is in this picture?"))
    try:
        prompts.build([question], [Grid(merge_size, merge_size)], thinking=None)
    except Exception:  # a template is a program of somebody else's, which may raise anything
        raise NoTokenizer(
            f"chat_template.jinja and tokenizer.json do not turn a question about an image into a prompt with the "
            f"one token {image_token} that config.json has for it."
        ) from None
