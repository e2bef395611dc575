"""Rounds a linear layer's weight to 8 or 4 bits: one scale for every block of inputs, chosen to lose least."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from export.quantize.all_cores import on_all_cores

BLOCK = {8: 32, 4: 32}
"""Inputs that share a scale. On CUDA, onnxruntime's kernels for any number of tokens take no other number."""
_CHUNK_VALUES = 1 << 18  # weights worked on at a time: the cache holds them, and memory stays bounded
_SHRINK = np.linspace(1.05, 0.7, 12, dtype=np.float32)


def blocks_of(inputs: int, bits: int) -> int:
    """Blocks of one output's weights; the last is filled up with zeros."""
    return -(-inputs // BLOCK[bits])


def find_scales(weight: np.ndarray, bits: int) -> np.ndarray:
    """The scale f32 [out, blocks] of every block of weight [out, in]."""
    find = _widest if bits == 8 else _closest
    scales = np.empty((len(weight), blocks_of(weight.shape[1], bits)), np.float32)

    def work(rows: slice) -> None:
        scales[rows] = find(_blocks(weight[rows], bits))

    on_all_cores(work, len(weight), _rows_at_once(weight, bits))
    return scales


def closest_scales(weight: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """The scales f32 [rows, blocks] of 4 bits for a few rows of a weight [rows, in] whose codes have the least squared
    error, where an input's error counts as much as its `importance` f32 [in]."""
    padded = np.ones((1, blocks_of(weight.shape[1], 4) * BLOCK[4]), np.float32)
    padded[0, : weight.shape[1]] = importance / max(float(importance.mean()), float(np.finfo(np.float32).tiny))
    return _closest(_blocks(weight, 4), padded.reshape(1, -1, BLOCK[4]))


def round_to_codes(weight: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """Codes u8 [out, blocks, bytes of a block]; a value is (code - half the range) * scale, the low half byte first."""
    half = 1 << (bits - 1)
    packed = np.empty((*scales.shape, BLOCK[bits] * bits // 8), np.uint8)

    def work(rows: slice) -> None:
        codes = (_nearest(_blocks(weight[rows], bits), scales[rows, :, None], half) + half).astype(np.uint8)
        packed[rows] = codes if bits == 8 else codes[..., 0::2] | (codes[..., 1::2] << 4)

    on_all_cores(work, len(weight), _rows_at_once(weight, bits))
    return packed


def signed_nibbles(packed: np.ndarray) -> np.ndarray:
    """Codes i4 [out, blocks * BLOCK] of 4-bit codes as `round_to_codes` packs them: the same values, with a sign."""
    rows = np.ascontiguousarray(packed).reshape(len(packed), -1)
    codes = np.empty((len(rows), 2 * rows.shape[1]), np.int8)
    codes[:, 0::2], codes[:, 1::2] = rows & 15, rows >> 4
    codes -= 8
    return codes.astype(ml_dtypes.int4)


def _widest(blocks: np.ndarray) -> np.ndarray:
    """Scales that just reach each block's largest weight: at 8 bits nothing is won by cutting it off."""
    return _not_zero(np.abs(blocks).max(axis=-1) / 127)


def _closest(blocks: np.ndarray, importance: np.ndarray | float = 1.0) -> np.ndarray:
    """Scales whose 4-bit codes have the least squared error, each weight's counting as much as its importance.

    The largest weight of a block gets the code -8, the one without a counterpart; from there the scale shrinks step by
    step, cutting that weight off. The best step is then fitted to its codes by least squares, and coded anew.
    """
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)
    start = _not_zero(largest / -8)  # [rows, blocks, 1]
    best = start.copy()
    least = np.full(start.shape, np.inf, np.float32)

    def keep(scales: np.ndarray, codes: np.ndarray) -> None:
        error = (importance * np.square(codes * scales - blocks)).sum(axis=-1, keepdims=True)
        better = error < least
        np.copyto(best, scales, where=better)
        np.copyto(least, error, where=better)

    for factor in _SHRINK:
        keep(start * factor, _nearest(blocks, start * factor, 8))
    codes = _nearest(blocks, best, 8)
    power = (importance * np.square(codes)).sum(axis=-1, keepdims=True)
    fitted = (importance * codes * blocks).sum(axis=-1, keepdims=True) / np.where(power == 0, 1, power)
    fitted = np.where(fitted == 0, best, fitted)
    keep(fitted, _nearest(blocks, fitted, 8))
    return best[..., 0]


def _nearest(blocks: np.ndarray, scales: np.ndarray, half: int) -> np.ndarray:
    codes: np.ndarray = np.clip(np.rint(blocks / scales), -half, half - 1)
    return codes


def _not_zero(scales: np.ndarray) -> np.ndarray:
    return np.where(scales == 0, np.float32(1), scales)


def _rows_at_once(weight: np.ndarray, bits: int) -> int:
    return max(1, _CHUNK_VALUES // (blocks_of(weight.shape[1], bits) * BLOCK[bits]))


def _blocks(part: np.ndarray, bits: int) -> np.ndarray:
    """A few rows' blocks f32 [rows, blocks, BLOCK], the last filled up with zeros."""
    size, count = BLOCK[bits], blocks_of(part.shape[1], bits)
    padded = np.zeros((len(part), count * size), np.float32)
    padded[:, : part.shape[1]] = part
    return padded.reshape(len(part), count, size)
