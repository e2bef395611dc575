"""Rounds a linear layer for a processor that multiplies bytes: 8 bits, with one scale for each output.

Activations get a scale for each row while the graph runs. A scale spans at most `WIDEST` inputs on both sides, so that
one large value costs its own group precision and no other; wider layers are the sum of several groups.
"""

from __future__ import annotations

import numpy as np

from export.quantize.all_cores import on_all_cores

WIDEST = 1024
"""Inputs that share a scale, at most."""
MOST = 127
"""The largest code; -128 is not used, so that codes are as far apart on both sides."""
_GROUPS = 64
_CHUNK_VALUES = 1 << 18  # weights worked on at a time: the cache holds them, and memory stays bounded


def group_size(inputs: int) -> int:
    """How many inputs each group has: all have the same number, so a layer whose width has no small divisor is one."""
    counts = (count for count in range(1, _GROUPS + 1) if inputs % count == 0 and inputs // count <= WIDEST)
    return inputs // next(counts, 1)


def group_names(name: str, inputs: int) -> list[str]:
    """What the groups of something called `name` are called, in their order; the only one keeps the name."""
    count = inputs // group_size(inputs)
    return [name] if count == 1 else [f"{name}.part{number}" for number in range(count)]


def output_scales(weight: np.ndarray) -> np.ndarray:
    """The scale f32 [out] that just reaches the largest weight of each output of weight [out, in]."""
    scales = np.empty(len(weight), np.float32)

    def work(rows: slice) -> None:
        scales[rows] = np.abs(weight[rows].astype(np.float32)).max(axis=-1) / MOST

    on_all_cores(work, len(weight), _rows_at_once(weight))
    return np.where(scales == 0, np.float32(1), scales)


def byte_codes(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Codes i8 [in, out] of weight [out, in]: turned round, as the multiplication takes them."""
    codes = np.empty(weight.shape[::-1], np.int8)

    def work(rows: slice) -> None:
        codes[:, rows] = np.rint(weight[rows].astype(np.float32) / scales[rows, None]).astype(np.int8).T

    on_all_cores(work, len(weight), _rows_at_once(weight))
    return codes


def _rows_at_once(weight: np.ndarray) -> int:
    return max(1, _CHUNK_VALUES // weight.shape[1])
