"""The state of every calibration prompt on its way through the decoder, from pictures and tokens to the last layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export.calibrate.prompts import CalibrationPrompt
from export.checkpoint.weights import EMBEDDING, Weights
from export.verify.subgraph import Subgraphs
from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, patches_of
from glmserve.model.mrope import mrope_positions
from glmserve.model.position_embedding import vision_arrays
from glmserve.model.tokenizer import Tokenizer
from glmserve.system.cpu_count import cores

_LONGEST = 1024
"""Tokens of a prompt that count; what follows them is left out."""
_PICTURE_COUNTS, _PROMPT_COUNTS = 0.05, 0.125
"""How much a token of a picture and of a prompt counts beside one of an answer. Tokens that an answer is drawn from are
few, and every error of theirs is seen: measured on answers to other pictures and questions, layers' errors are smaller
by a tenth than with all tokens alike."""


@dataclass(frozen=True)
class Prompt:
    """`state` f32 [tokens, hidden] goes into the next layer, with `positions` i64 [3, tokens]; `counts` f32 [tokens] is
    how much each token does."""

    state: np.ndarray
    positions: np.ndarray
    counts: np.ndarray


def first_states(
    folder: Path, checkpoint: Checkpoint, weights: Weights, vision: Path, prompts: Iterable[CalibrationPrompt]
) -> list[Prompt]:
    """What goes into the first layer; `vision` is the build's image encoder, as it will be served."""
    tokenizer = Tokenizer.read(folder)
    builder = PromptBuilder.read(folder, tokenizer, checkpoint.image_token_id, checkpoint.vision.merge_size)
    encoder = Subgraphs(vision, cores())
    words: dict[int, np.ndarray] = {}
    return [_first_state(checkpoint, weights, builder, tokenizer, encoder, words, prompt) for prompt in prompts]


def _first_state(
    checkpoint: Checkpoint,
    weights: Weights,
    builder: PromptBuilder,
    tokenizer: Tokenizer,
    encoder: Subgraphs,
    words: dict[int, np.ndarray],
    prompt: CalibrationPrompt,
) -> Prompt:
    images = [] if prompt.image is None else [prompt.image]
    read = [_features(checkpoint, encoder, image) for image in images]
    grids = [grid for _, grid in read]
    question = Message("user", (*(ImagePart() for _ in images), prompt.prompt))
    asked = builder.build([question], grids, prompt.thinking)
    ids = np.concatenate([asked, np.asarray(tokenizer.encode(prompt.answer), np.int64)])
    positions, _ = mrope_positions(ids, checkpoint.image_token_id, grids, checkpoint.vision.merge_size)
    is_picture = ids == checkpoint.image_token_id
    state = np.empty((len(ids), checkpoint.text.hidden), np.float32)
    for at in np.flatnonzero(~is_picture):
        token = int(ids[at])
        if token not in words:
            words[token] = weights.read_rows(EMBEDDING, token, token + 1)[0].astype(np.float32)
        state[at] = words[token]
    if read:
        state[is_picture] = np.concatenate([features for features, _ in read])
    counts = np.where(is_picture, _PICTURE_COUNTS, _PROMPT_COUNTS).astype(np.float32)
    counts[len(asked) - 1 :] = 1  # what an answer is drawn from
    return Prompt(state[:_LONGEST], positions[:, :_LONGEST], counts[:_LONGEST])


def _features(checkpoint: Checkpoint, encoder: Subgraphs, image: Image.Image) -> tuple[np.ndarray, Grid]:
    patches, grid = patches_of(image, checkpoint.images)
    names = (IMAGE_PATCHES.name, ROW_WEIGHTS.name, COLUMN_WEIGHTS.name)
    arrays = vision_arrays(patches, grid, checkpoint.vision.table_side)
    given = {name: array[None] for name, array in zip(names, arrays, strict=True)}
    return encoder.run(given, [IMAGE_FEATURES.name])[0][0], grid
