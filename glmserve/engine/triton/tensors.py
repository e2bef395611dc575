"""Reads a request from its tensors, and writes events as tensors; `contract` says what each tensor means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glmserve import contract
from glmserve.contract import Tensor
from glmserve.engine.request import Done, Ended, Event, Failed, Tokens
from glmserve.errors import InvalidInput
from glmserve.limits import (
    LARGEST_LOGIT_BIAS,
    MAX_ALLOWED_TOKEN_IDS,
    MAX_ANSWERS,
    MAX_BAD_WORDS,
    MAX_IMAGES,
    MAX_LOGIT_BIAS,
    MAX_PROMPTS,
    MAX_STOP_TOKEN_IDS,
    MAX_VIDEO_FRAMES,
    MAX_VIDEOS,
)
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.video_sampling import FRAMES_A_MOMENT
from glmserve.sampling_parameters import PARAMETERS, Parameter, Sampling, Value

Tensors = dict[str, np.ndarray]
_MOST_IMAGES = MAX_IMAGES + MAX_VIDEOS * MAX_VIDEO_FRAMES // FRAMES_A_MOMENT


@dataclass(frozen=True)
class Asked:
    """One checked request: images as patches u8 [all frames' patches, patch_bytes] with their grids."""

    input_ids: np.ndarray
    images: list[tuple[np.ndarray, Grid]]
    sampling: Sampling
    deadline_s: float
    grammar: bytes | None
    scope: int
    salt: int = 0
    answers: int = 1


def kept(array: np.ndarray) -> np.ndarray:
    """The array if it owns its memory, else a copy: memory that Triton lends is invalid after the call."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return array if owner.flags.owndata else array.copy()


def read_request(tensors: Tensors, checkpoint: Checkpoint) -> Asked:
    """Raises InvalidInput when a tensor holds a value that the model cannot take."""
    input_ids = tensors[contract.INPUT_IDS.name]
    vocabulary = checkpoint.text.vocabulary
    if len(input_ids) == 0 or int(input_ids.min()) < 0 or int(input_ids.max()) >= vocabulary:
        raise InvalidInput(f"Token ids must lie between 0 and {vocabulary - 1}, and there must be one.", "prompt")
    grammar = tensors.get(contract.GRAMMAR.name)
    return Asked(
        input_ids=input_ids,
        images=_images(tensors, checkpoint),
        sampling=_sampling(tensors, vocabulary),
        deadline_s=int(tensors[contract.DEADLINE_MS.name][0]) / 1000,
        grammar=None if grammar is None or not len(grammar) else grammar.tobytes(),
        scope=_number(tensors, contract.CACHE_SCOPE, 0),
        salt=_number(tensors, contract.CACHE_SALT, 0),
        answers=answers_in(tensors),
    )


def answers_in(tensors: Tensors) -> int:
    """How many answers are wanted, negative where only places for them are asked for; raises InvalidInput."""
    answers = _number(tensors, contract.ANSWERS, 1)
    if not (1 <= answers <= MAX_ANSWERS or 1 <= -answers <= MAX_ANSWERS * MAX_PROMPTS):
        raise InvalidInput(f"The field n must be a whole number from 1 to {MAX_ANSWERS}.", "n")
    return answers


def _number(tensors: Tensors, tensor: Tensor, default: int) -> int:
    return int(tensors[tensor.name][0]) if tensor.name in tensors else default


def keys_in(tensors: Tensors, tensor: Tensor) -> list[int]:
    """The keys that stand in CANCEL_KEY or CANCEL."""
    return [int(key) for key in tensors[tensor.name]] if tensor.name in tensors else []


def length_and_deadline(tensors: Tensors) -> tuple[int, float]:
    """The most tokens of an answer and the seconds it may take, as sent: neither is checked yet."""
    most, left = tensors[contract.SAMPLING_INPUTS["max_tokens"].name], tensors[contract.DEADLINE_MS.name]
    return max(0, int(most[0])), float(left[0]) / 1000


def asks_for_whole(tensors: Tensors) -> bool:
    """Whether the whole answer is wanted in one message."""
    return contract.WHOLE.name in tensors and bool(tensors[contract.WHOLE.name].any())


def message(events: list[Event]) -> Tensors:
    """Events that follow one another, none of them a failure, as `contract.DECODER_OUTPUTS`."""
    parts = [event for event in events if isinstance(event, Tokens)]
    tokens = [token for part in parts for token in part.tokens]
    tensors: Tensors = {contract.TOKENS.name: np.asarray(tokens, np.int32)}
    if any(part.number is not None for part in parts):
        numbers = [number for part in parts for number in [part.number or 0] * len(part.tokens)]
        tensors[contract.CHOICES.name] = np.asarray(numbers, np.int32)
    if logprobs := [part.logprobs for part in parts if part.logprobs]:
        tensors[contract.LOGPROB_IDS.name] = np.concatenate([each.ids for each in logprobs]).astype(np.int32)
        tensors[contract.LOGPROB_VALUES.name] = np.concatenate([each.values for each in logprobs]).astype(np.float32)
    for event in events:
        assert not isinstance(event, Failed)
        if isinstance(event, Ended):
            tensors[contract.FINISH.name] = np.asarray(event.finishes, np.int32)
        elif isinstance(event, Done):
            timings = event.timings
            seconds = (timings.queue_s, timings.vision_s, timings.prefill_s, timings.decode_s)
            tensors[contract.FINISH.name] = np.asarray(event.finishes or [event.finish], np.int32)
            tensors[contract.TIMINGS_MS.name] = np.asarray(seconds, np.float32) * 1000
            tensors[contract.CACHED_TOKENS.name] = np.asarray([event.cached_tokens], np.int32)
            if event.stop_tokens:
                tensors[contract.STOP_TOKENS.name] = np.asarray(event.stop_tokens, np.int32)
    return tensors


def _sampling(tensors: Tensors, vocabulary: int) -> Sampling:
    values: dict[str, Any] = {parameter.name: _value(tensors, parameter) for parameter in PARAMETERS}
    biased = _ids(tensors, contract.BIASED_TOKEN_IDS, "logit_bias", MAX_LOGIT_BIAS, vocabulary)
    bias = tensors.get(contract.LOGIT_BIAS.name, np.empty(0, np.float32))
    if len(bias) != len(biased) or not (np.abs(bias) <= LARGEST_LOGIT_BIAS).all():
        raise InvalidInput(
            f"The field logit_bias must give each token id a number from {-LARGEST_LOGIT_BIAS:g} to "
            f"{LARGEST_LOGIT_BIAS:g}.",
            "logit_bias",
        )
    allowed = _ids(tensors, contract.ALLOWED_TOKEN_IDS, "allowed_token_ids", MAX_ALLOWED_TOKEN_IDS, vocabulary)
    return Sampling(
        **values,
        stop_token_ids=_ids(tensors, contract.STOP_TOKEN_IDS, "stop_token_ids", MAX_STOP_TOKEN_IDS, vocabulary),
        logit_bias=tuple(zip(biased, bias.tolist(), strict=True)),
        bad_words=_bad_words(tensors),
        allowed_token_ids=allowed,
    )


def _ids(tensors: Tensors, tensor: Tensor, field: str, most: int, vocabulary: int) -> tuple[int, ...]:
    """A list of token ids; raises InvalidInput when it is too long or an id is outside the vocabulary."""
    ids = tensors.get(tensor.name, np.empty(0, np.int64))
    if len(ids) > most:
        raise InvalidInput(f"The field {field} has {len(ids)} token ids; at most {most} are accepted.", field)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise InvalidInput(f"The token ids in the field {field} must lie between 0 and {vocabulary - 1}.", field)
    return tuple(ids.tolist())


def _bad_words(tensors: Tensors) -> tuple[tuple[int, ...], ...]:
    rows = tensors.get(contract.BAD_WORDS.name, np.empty((0, 0), np.int64))
    if len(rows) > 2 * MAX_BAD_WORDS:
        raise InvalidInput(f"The field bad_words may hold at most {MAX_BAD_WORDS} words.", "bad_words")
    return tuple(word for word in (tuple(row[row >= 0].tolist()) for row in rows) if word)


def _value(tensors: Tensors, parameter: Parameter) -> Value:
    """Raises InvalidInput for a value out of range. Both bounds are rounded as the value was and are included, even an
    exclusive minimum, because float32 may round a valid value to it."""
    array = tensors.get(parameter.tensor_name)
    if array is None and parameter.is_optional:
        return parameter.default
    assert array is not None  # Triton refuses a request that lacks what is not optional
    value, rounded = array[0], array.dtype.type
    if not rounded(parameter.minimum) <= value <= rounded(parameter.maximum):
        raise InvalidInput(f"The field {parameter.name} must be {parameter.accepted}.", parameter.name)
    return parameter.type(value)


def _images(tensors: Tensors, checkpoint: Checkpoint) -> list[tuple[np.ndarray, Grid]]:
    """Patches and grid of each image; raises InvalidInput when the two tensors disagree."""
    merge, images = checkpoint.images.merge_size, checkpoint.images
    rows = tensors.get(contract.GRIDS.name)
    if rows is None or len(rows) == 0:
        return []
    if len(rows) > _MOST_IMAGES:
        raise InvalidInput(f"A request may hold at most {_MOST_IMAGES} images and moments of videos.", "image")
    frames = tensors.get(contract.FRAMES.name, np.ones(len(rows), np.int32))
    if len(frames) != len(rows) or not ((frames >= 1) & (frames <= images.temporal_patch_size)).all():
        raise InvalidInput(f"Each image must have 1 to {images.temporal_patch_size} frames.", "image")
    grids = [Grid(int(down), int(across), int(each)) for (down, across), each in zip(rows, frames, strict=True)]
    if any(g.rows < merge or g.columns < merge or g.rows % merge or g.columns % merge for g in grids):
        raise InvalidInput(f"Image grids must be positive multiples of {merge}.", "image")
    patches = tensors.get(contract.PATCHES.name)
    wanted = sum(grid.sent_patches for grid in grids), images.patch_bytes
    if patches is None or patches.shape != wanted:
        raise InvalidInput(f"The images' grids ask for patches of shape {list(wanted)}.", "image")
    most_pixels = max(images.max_pixels, checkpoint.videos.max_pixels)
    if any(images.temporal_patch_size * g.patches * images.patch_size**2 > most_pixels for g in grids):
        raise InvalidInput("An image has more patches than the model accepts.", "image")
    ends = np.cumsum([grid.sent_patches for grid in grids])
    return list(zip(np.split(patches, ends[:-1]), grids, strict=True))
