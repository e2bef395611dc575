"""Resizes the image encoder's square position table to an image's patch grid."""

from __future__ import annotations

import numpy as np

from glmserve.model.image_processor import Grid

VisionArrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""One image as `contract.VISION_INPUTS`, without the batch axis."""

_A = -0.75  # torch's bicubic kernel


def vision_arrays(patches: np.ndarray, grid: Grid, table_side: int) -> VisionArrays:
    """The encoder's inputs for an image's patches u8 [patches, patch_bytes]."""
    return patches, bicubic_weights(grid.rows, table_side), bicubic_weights(grid.columns, table_side)


def bicubic_weights(size: int, table_side: int) -> np.ndarray:
    """f32 [size, table_side]: row i holds what each table entry gives to patch i along one axis.

    Bicubic, a = -0.75, align_corners=False, border clamped, as `grid_sample` does it: patch i reads the table at
    (i + 0.5) / size * table_side - 0.5.
    """
    at = (np.arange(size, dtype=np.float64) + 0.5) / size * table_side - 0.5
    floor = np.floor(at)
    weights = np.zeros((size, table_side))
    for tap in (-1, 0, 1, 2):
        index = np.clip(floor + tap, 0, table_side - 1).astype(np.int64)
        np.add.at(weights, (np.arange(size), index), _kernel(np.abs(at - floor - tap)))
    return weights.astype(np.float32)


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel at distances of 0 to 2."""
    near = ((_A + 2) * distance - (_A + 3)) * distance * distance + 1
    far = ((_A * distance - 5 * _A) * distance + 8 * _A) * distance - 4 * _A
    return np.where(distance <= 1, near, far)
