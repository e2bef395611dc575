"""The images that an engine of the encoder is built for: the least, the usual and the largest."""

from __future__ import annotations

import math

from glmserve.contract import COLUMN_WEIGHTS, IMAGE_PATCHES, ROW_WEIGHTS, VISION_MAX_BATCH
from glmserve.model.config import Checkpoint

_USUAL_ROWS, _USUAL_COLUMNS = 34, 46
"""An image of 640 x 480."""

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]
"""The least, the usual and the largest shape of each input, its batch axis included."""


def profile_of(checkpoint: Checkpoint) -> Profile:
    """Images of which no side is longer than the largest square's that the checkpoint allows, eight at a time.

    Each of the three is one image, patches being rows times columns, for each of the largest one's two frames:
    TensorRT runs the graph's shapes on all three, and refuses any that do not fit together.
    """
    images, side = checkpoint.images, checkpoint.vision.table_side
    step = images.merge_size
    most_patches = images.max_pixels // (images.temporal_patch_size * images.patch_size**2)
    most = max(step, math.isqrt(most_patches) // step * step)
    rows, columns = min(_USUAL_ROWS, most), min(_USUAL_COLUMNS, most)
    width, batch = images.patch_bytes, VISION_MAX_BATCH
    frames = images.temporal_patch_size
    return {
        IMAGE_PATCHES.name: ((1, step * step, width), (1, rows * columns, width), (batch, frames * most * most, width)),
        ROW_WEIGHTS.name: ((1, step, side), (1, rows, side), (batch, most, side)),
        COLUMN_WEIGHTS.name: ((1, step, side), (1, columns, side), (batch, most, side)),
    }
