"""Resizes a video's frames exactly as transformers' video processors do: antialiased bicubic in whole numbers.

Pillow resizes still images, as the image processors do, and rounds otherwise: up to two levels differ. What is followed
here takes weights of 16 bits, goes across before it goes down, and rounds to a byte in between.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_A = -0.5  # of Keys' kernel, where images are antialiased
_SUPPORT = 2.0
_WEIGHT_BITS = 15
_MOST_BITS = 22
_AT_ONCE = 16
"""Rows or columns that one product of matrices makes: more of them would multiply more zeros."""

_Steps = tuple[tuple[slice, slice, NDArray[np.float64]], ...]


def resized(planes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Planes u8 [channels, rows, columns] in another size, u8 [channels, height, width]."""
    planes = np.ascontiguousarray(planes)
    channels, rows, columns = planes.shape
    if columns != width:
        flat = planes.reshape(channels * rows, columns)
        across = np.empty((channels * rows, width), np.uint8)
        for source, target, weights in _steps(columns, width):
            across[:, target] = _as_bytes(flat[:, source].astype(np.float64) @ weights.T)
        planes = across.reshape(channels, rows, width)
    if rows == height:
        return planes
    down = np.empty((channels, height, width), np.uint8)
    for source, target, weights in _steps(rows, height):
        down[:, target] = _as_bytes(weights @ planes[:, source].astype(np.float64))
    return down


def _as_bytes(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums, each exact in a float64, rounded half up; changed in place."""
    sums += 0.5
    np.floor(sums, out=sums)
    return np.clip(sums, 0, 255, out=sums)


@lru_cache(maxsize=8)
def _steps(size: int, wanted: int) -> _Steps:
    """Which entries along an axis make which new ones, and their weights [new, old]: counts of a power of 2."""
    first, last, weights = _weights(size, wanted)
    steps = []
    for begin in range(0, wanted, _AT_ONCE):
        end = min(begin + _AT_ONCE, wanted)
        source = slice(int(first[begin]), int(last[end - 1]))
        matrix = np.zeros((end - begin, source.stop - source.start))
        for row, (start, stop) in enumerate(zip(first[begin:end], last[begin:end], strict=True)):
            matrix[row, start - source.start : stop - source.start] = weights[begin + row, : stop - start]
        steps.append((source, slice(begin, end), matrix))
    return tuple(steps)


def _weights(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The first entry that makes each new one, the one after the last, and the weights of those between."""
    scale = size / wanted
    wide = max(scale, 1.0)
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - _SUPPORT * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + _SUPPORT * wide + 0.5).astype(np.int64), size)
    at = first[:, None] + np.arange((last - first).max())
    weights = _kernel(np.abs(at - centre[:, None] + 0.5) / wide)
    weights[at >= last[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    largest, bits = weights.max(), 0
    while bits < _MOST_BITS and int(0.5 + largest * (1 << (bits + 1))) < 1 << _WEIGHT_BITS:
        bits += 1
    scaled = weights * (1 << bits)
    return first, last, np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)) / (1 << bits)


def _kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_A + 2) * distance - (_A + 3)) * distance * distance + 1
    far = ((_A * distance - 5 * _A) * distance + 8 * _A) * distance - 4 * _A
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
