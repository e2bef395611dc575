"""Asks a build its canary question before it is published."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from export.errors import NotAnswered
from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids
from glmserve.build.canary import CANARY_IMAGE, Canary
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.engine.runtime.device import DeviceName
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import grid_of
from glmserve.model.output_parser import AnswerReader
from glmserve.model.tokenizer import Tokenizer

_MOST_TOKENS = 64


def smoke_test(build: Path, device: DeviceName) -> str:
    """The build's greedy answer to its canary question.

    Raises NotAnswered when the answer is not the recorded one, is empty, or comes from logits that are not finite.
    Raises BadArtifact when the build or its canary cannot be read, or this machine has no such device.
    """
    canary = Canary.read(build)
    try:
        with Image.open(io.BytesIO(canary.image)) as opened:
            image = opened.copy()
    except (OSError, ValueError):
        raise BadArtifact(f"{build / CANARY_IMAGE} cannot be read as an image.") from None
    right = canary.answer
    case = Case("canary", (Message("user", (ImagePart(), canary.prompt)),), (image,))
    candidate = Candidate(build, 1, _context(build, case), device)
    candidate.poison()
    prompt = candidate.prompt(input_ids(candidate, case), [image])
    tokens = candidate.answer(prompt, candidate.decoder.context - prompt.length)
    logits = candidate.decoder.logits
    reader = AnswerReader(candidate.tokenizer)
    reader.push([token for token in tokens if token not in candidate.checkpoint.eos_token_ids])
    reader.finish()
    if logits is None or not np.isfinite(logits).all():
        raise NotAnswered(f"Build {build.name} did not answer its golden image: its numbers are not finite.")
    if not reader.content:
        raise NotAnswered(f"Build {build.name} had no words for its golden image.")
    if right is not None and reader.content != right.strip():
        raise NotAnswered(f"Build {build.name} answered its golden image with {reader.content!r}, not {right!r}.")
    return reader.content


def _context(build: Path, case: Case) -> int:
    """Tokens of the prompt and the longest answer to it; raises BadArtifact when there is no room for any answer."""
    folder = build / CHECKPOINT_FOLDER
    checkpoint = Checkpoint.read(folder)
    most, merge_size = checkpoint.text.max_positions, checkpoint.vision.merge_size
    prompts = PromptBuilder.read(folder, Tokenizer.read(folder), checkpoint.image_token_id, merge_size)
    grids = [
        grid_of(image.height, image.width, checkpoint.images) for image in case.images if isinstance(image, Image.Image)
    ]
    length = len(prompts.build(list(case.messages), grids, case.thinking))
    if length >= most:
        raise BadArtifact(
            f"The canary of build {build.name} has {length} tokens, and its checkpoint takes {most} with the answer."
        )
    return min(length + _MOST_TOKENS, most)
