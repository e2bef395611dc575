"""What the encode queue runs: the encoder's graph in this process, in batches, or Triton's encoder, image by image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from glmserve.engine.vision.encode_queue import EncodeImages
from glmserve.engine.vision.stop import Stop
from glmserve.errors import BackendDown
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import VisionArrays, vision_arrays

_SIDE = 16
"""Patches along each side of the image that the encoder's pace is measured with."""

EncodeImage = Callable[[VisionArrays], np.ndarray]
"""One image's arrays -> features f32 [image tokens, hidden]."""


@runtime_checkable
class VisionSession(Protocol):
    """Runs the image encoder's graph."""

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B images of one grid; see `contract.VISION_INPUTS`. Raises
        anything soon after `stop` is set."""
        ...


def in_batches(session: VisionSession) -> EncodeImages:
    """All images of a run in one batch; raises BackendDown when the graph fails."""

    def encode(images: list[VisionArrays], stop: Stop) -> list[np.ndarray]:
        patches, rows, columns = (_together(column) for column in zip(*images, strict=True))
        try:
            features = session.run(patches, rows, columns, stop)
        except Exception as error:  # onnxruntime raises its own unrelated classes
            raise BackendDown("The image encoder failed.") from error
        # one of several is copied, since it may outlive the others in a cache
        return [found if len(images) == 1 else found.copy() for found in features]

    return encode


def one_by_one(encode_image: EncodeImage) -> EncodeImages:
    """Image after image, until it is stopped."""

    def encode(images: list[VisionArrays], stop: Stop) -> list[np.ndarray]:
        features = []
        for arrays in images:
            if stop.is_set():
                raise BackendDown("The run was stopped.")
            features.append(encode_image(arrays))
        return features

    return encode


def patch_s(session: VisionSession, checkpoint: Checkpoint) -> float:
    """Seconds that the encoder takes for each patch of a small image. The first run, which finds weights on the disk,
    does not count."""
    grid = Grid(_SIDE, _SIDE)
    patches = np.zeros((grid.patches, checkpoint.images.patch_bytes), np.uint8)
    image, row_weights, column_weights = (
        array[None] for array in vision_arrays(patches, grid, checkpoint.vision.table_side)
    )
    session.run(image, row_weights, column_weights)
    began = time.monotonic()
    session.run(image, row_weights, column_weights)
    return (time.monotonic() - began) / grid.patches


def _together(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """All arrays as one batch; a single image is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
