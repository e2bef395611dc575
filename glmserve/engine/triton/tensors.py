"""Reads a request from its tensors, and writes events as tensors; `contract` says what each tensor means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glmserve import contract
from glmserve.contract import Tensor
from glmserve.engine.request import Done, Event, Failed, Logprobs, Tokens
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES, MAX_STOP_TOKEN_IDS
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import PARAMETERS, Parameter, Sampling, Value

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """One checked request: images as patches u8 [patches, patch_bytes] with their grids."""

    input_ids: np.ndarray
    images: list[tuple[np.ndarray, Grid]]
    sampling: Sampling
    deadline_s: float
    grammar: bytes | None
    scope: int


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
        sampling=_sampling(tensors),
        deadline_s=int(tensors[contract.DEADLINE_MS.name][0]) / 1000,
        grammar=None if grammar is None or not len(grammar) else grammar.tobytes(),
        scope=int(tensors.get(contract.CACHE_SCOPE.name, np.zeros(1, np.int64))[0]),
    )


def key_in(tensors: Tensors, tensor: Tensor) -> int | None:
    """The key that stands in CANCEL_KEY or CANCEL."""
    return int(tensors[tensor.name][0]) if tensor.name in tensors else None


def length_and_deadline(tensors: Tensors) -> tuple[int, float]:
    """The most tokens of an answer and the seconds it may take, as sent: neither is checked yet."""
    most, left = tensors[contract.SAMPLING_INPUTS["max_tokens"].name], tensors[contract.DEADLINE_MS.name]
    return max(0, int(most[0])), float(left[0]) / 1000


def asks_for_whole(tensors: Tensors) -> bool:
    """Whether the whole answer is wanted in one message."""
    return contract.WHOLE.name in tensors and bool(tensors[contract.WHOLE.name].any())


def message(events: list[Event]) -> Tensors:
    """Events that follow one another, none of them a failure, as `contract.DECODER_OUTPUTS`."""
    tokens = [token for event in events if isinstance(event, Tokens) for token in event.tokens]
    tensors: Tensors = {contract.TOKENS.name: np.asarray(tokens, np.int32)}
    for event in events:
        assert not isinstance(event, Failed)
        if isinstance(event, Done):
            timings = event.timings
            seconds = (timings.queue_s, timings.vision_s, timings.prefill_s, timings.decode_s)
            tensors[contract.FINISH.name] = np.asarray([event.finish], np.int32)
            tensors[contract.TIMINGS_MS.name] = np.asarray(seconds, np.float32) * 1000
            tensors[contract.CACHED_TOKENS.name] = np.asarray([event.cached_tokens], np.int32)
        elif event.logprobs:
            tensors |= _logprobs(event.logprobs)
    return tensors


def _logprobs(logprobs: Logprobs) -> Tensors:
    return {
        contract.LOGPROB_IDS.name: logprobs.ids.astype(np.int32),
        contract.LOGPROB_VALUES.name: logprobs.values.astype(np.float32),
    }


def _sampling(tensors: Tensors) -> Sampling:
    stop_token_ids = tensors.get(contract.STOP_TOKEN_IDS.name, np.empty(0, np.int64))
    if len(stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidInput(
            f"The field stop_token_ids has {len(stop_token_ids)} ids; at most {MAX_STOP_TOKEN_IDS} are accepted.",
            "stop_token_ids",
        )
    values: dict[str, Any] = {parameter.name: _value(tensors, parameter) for parameter in PARAMETERS}
    return Sampling(**values, stop_token_ids=tuple(stop_token_ids.tolist()))


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
    grids = [Grid(int(down), int(across)) for down, across in rows]
    if len(grids) > MAX_IMAGES:
        raise InvalidInput(f"A request may hold at most {MAX_IMAGES} pictures.", "image")
    if any(g.rows < merge or g.columns < merge or g.rows % merge or g.columns % merge for g in grids):
        raise InvalidInput(f"Image grids must be positive multiples of {merge}.", "image")
    patches = tensors.get(contract.PATCHES.name)
    wanted = sum(grid.patches for grid in grids), images.patch_bytes
    if patches is None or patches.shape != wanted:
        raise InvalidInput(f"The images' grids ask for patches of shape {list(wanted)}.", "image")
    if any(images.temporal_patch_size * g.patches * images.patch_size**2 > images.max_pixels for g in grids):
        raise InvalidInput("An image has more patches than the model accepts.", "image")
    ends = np.cumsum([grid.patches for grid in grids])
    return list(zip(np.split(patches, ends[:-1]), grids, strict=True))
