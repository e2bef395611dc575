"""Rounds a linear layer's weight to 4 bits so that its products change least: what rounding one input's weights gets
wrong is made good by those of the inputs that are still to be rounded (GPTQ).

What inputs look like together is told by their moments, the sums of x xT over many tokens. The scales are chosen first,
for the weights as they are, with an input's error counting as much as its square does. Inputs are then rounded from the
largest to the smallest. Wide layers have moments within equal groups of inputs only, which bounds memory and time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.quantize.all_cores import on_all_cores
from export.quantize.blockwise import BLOCK, blocks_of, closest_scales

BITS = 4
WIDEST = 4096
"""Inputs whose moments are kept together, at most."""
_DAMPING = 0.01
_APART = 0.25
"""So much less counts what two inputs have in common than what was seen of it: in other pictures and texts they have
less in common. Of 0 to 0.5, 0.2 to 0.35 gave the smallest errors on such."""
_ROWS = 512
_INPUTS_AT_ONCE = 128
_HALF = 1 << (BITS - 1)


def group_count(inputs: int) -> int:
    """Groups of equal numbers of whole blocks that an input's moments are kept in."""
    blocks = blocks_of(inputs, BITS)
    if inputs % BLOCK[BITS]:
        return 1
    return next(count for count in range(1, blocks + 1) if blocks % count == 0 and inputs // count <= WIDEST)


def empty_moments(inputs: int) -> np.ndarray:
    """Moments f32 [groups, width, width] of no token yet."""
    groups = group_count(inputs)
    return np.zeros((groups, inputs // groups, inputs // groups), np.float32)


def add_moments(moments: np.ndarray, x: np.ndarray, counts: np.ndarray | None = None) -> None:
    """Adds those of x f32 [tokens, inputs]; `counts` f32 [tokens] is how much each token does, where they differ."""
    groups, width, _ = moments.shape
    if counts is not None:
        x = x * np.sqrt(counts)[:, None]
    for group in range(groups):
        part = x[:, group * width : (group + 1) * width]
        moments[group] += part.T @ part


@dataclass(frozen=True)
class Rounded:
    """Scales f32 [out, blocks] and packed codes u8 [out, blocks, bytes], as blockwise rounding gives them, and by how
    much products change: the square of the error over the square of what is right."""

    scales: np.ndarray
    packed: np.ndarray
    error: float


def rounded(weight: np.ndarray, moments: np.ndarray, scale_type: np.dtype) -> Rounded:
    """A weight [out, in] rounded for inputs with these moments; scales are kept in `scale_type`."""
    width = moments.shape[1]
    orders = [np.argsort(-np.diagonal(part), kind="stable") for part in moments]
    factors = [_factor(part, order) for part, order in zip(moments, orders, strict=True)]
    importance = np.concatenate([np.diagonal(part) for part in moments])
    blocks, inputs = blocks_of(weight.shape[1], BITS), weight.shape[1]
    scales = np.empty((len(weight), blocks), np.float32)
    packed = np.empty((len(weight), blocks, BLOCK[BITS] // 2), np.uint8)
    errors = np.zeros((len(weight), 2), np.float64)

    def work(rows: slice) -> None:
        part = weight[rows].astype(np.float32)
        scales[rows] = closest_scales(part, importance).astype(scale_type).astype(np.float32)
        codes = np.full((len(part), blocks * BLOCK[BITS]), _HALF, np.uint8)
        for group, (order, factor) in enumerate(zip(orders, factors, strict=True)):
            columns = group * width + order
            per_input = scales[rows][:, columns // BLOCK[BITS]]
            signed = _compensate(part[:, columns], per_input, factor)
            codes[:, columns] = (signed + _HALF).astype(np.uint8)
            wrong = np.empty((len(part), width), np.float32)
            wrong[:, order] = signed * per_input - part[:, columns]
            right = part[:, group * width : (group + 1) * width]
            for column, values in enumerate((wrong, right)):
                errors[rows, column] += np.einsum("ri,ri->r", values @ moments[group], values, dtype=np.float64)
        nibbles = codes.reshape(len(part), blocks, BLOCK[BITS])
        packed[rows] = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)

    on_all_cores(work, len(weight), _ROWS)
    assert blocks * BLOCK[BITS] >= inputs
    wrong, right = errors.sum(axis=0)
    return Rounded(scales, packed, float(wrong / right) if right > 0 else 0.0)


def values_of(found: Rounded, inputs: int) -> np.ndarray:
    """The numbers f32 [out, in] that scales and codes stand for."""
    codes = np.stack([found.packed & 15, found.packed >> 4], axis=-1).reshape(*found.packed.shape[:2], -1)
    values = (codes.astype(np.float32) - _HALF) * found.scales[..., None]
    return np.ascontiguousarray(values.reshape(len(values), -1)[:, :inputs])


def _factor(moments: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The upper triangle U f32 [width, width] with U^T U the inverse of the moments, taken in `order`.

    An input that was never anything but zero is given weight of its own; a share of the mean is added to all, which
    keeps the inverse finite, and more of it where rounding in fp32 calls for that.
    """
    held = moments[np.ix_(order, order)].astype(np.float64 if len(order) <= 1024 else np.float32)
    diagonal = np.diagonal(held).copy()
    held *= 1 - _APART
    held[np.diag_indices_from(held)] = diagonal
    mean = float(diagonal[diagonal > 0].mean()) if (diagonal > 0).any() else 1.0
    for damping in (_DAMPING, 10 * _DAMPING, 1.0):
        damped = held + np.diag(np.where(diagonal > 0, damping * mean, mean)).astype(held.dtype)
        try:
            lower = np.linalg.cholesky(damped[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        inverse: np.ndarray = np.linalg.inv(lower)[::-1, ::-1]
        return np.ascontiguousarray(np.triu(inverse).astype(np.float32))
    return np.eye(len(order), dtype=np.float32)


def _compensate(weight: np.ndarray, scales: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Signed codes f32 of a weight [rows, inputs], rounded input by input from the left; `weight` is used up."""
    codes = np.empty_like(weight)
    for begin in range(0, weight.shape[1], _INPUTS_AT_ONCE):
        end = min(begin + _INPUTS_AT_ONCE, weight.shape[1])
        wrong = np.empty((len(weight), end - begin), np.float32)
        for at in range(begin, end):
            code = np.clip(np.rint(weight[:, at] / scales[:, at]), -_HALF, _HALF - 1)
            codes[:, at] = code
            wrong[:, at - begin] = (weight[:, at] - code * scales[:, at]) / factor[at, at]
            weight[:, at + 1 : end] -= wrong[:, at - begin, None] * factor[at, at + 1 : end]
        weight[:, end:] -= wrong @ factor[begin:end, end:]
    return codes
