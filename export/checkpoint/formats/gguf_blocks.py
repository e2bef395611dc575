"""The blocks that a GGUF file keeps numbers in, taken apart into codes, scales and offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from export.checkpoint.packed import Codes

_SUPER = 256
_Unpack = Callable[[np.ndarray], Codes]


@dataclass(frozen=True)
class Kind:
    """A type of GGUF's: `values` numbers lie in `size` bytes. Plain numbers have an `element`; codes have `bits`, are
    kept in `kept_bits`, share a scale by `block` inputs, and are taken apart by `unpack` from bytes [rows, blocks,
    size]."""

    name: str
    values: int
    size: int
    element: np.dtype | None = None
    bits: int = 0
    kept_bits: int = 0
    block: int = 0
    has_offsets: bool = False
    unpack: _Unpack | None = None


def _halves(raw: np.ndarray) -> np.ndarray:
    """Codes of 4 bits [rows, blocks, 2 n] of bytes [rows, blocks, n]: first all low halves, then all high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _half_float(raw: np.ndarray) -> np.ndarray:
    """Numbers f32 [rows, blocks] of the two bytes [rows, blocks, 2] of each."""
    return np.ascontiguousarray(raw).view(np.float16)[..., 0].astype(np.float32)


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
    """The fifth bits u8 [rows, blocks, 32] of bytes [rows, blocks, 4], as bit 4."""
    return np.unpackbits(raw, axis=-1, bitorder="little") << 4


def _flat(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(len(codes), -1)


def _q4_0(raw: np.ndarray) -> Codes:
    return Codes(_flat(_halves(raw[..., 2:])), _half_float(raw[..., :2]))


def _q4_1(raw: np.ndarray) -> Codes:
    return _from_zero(_halves(raw[..., 4:]), _half_float(raw[..., :2]), _half_float(raw[..., 2:4]), 8)


def _q5_0(raw: np.ndarray) -> Codes:
    codes = _halves(raw[..., 6:]) | _fifth_bits(raw[..., 2:6])
    return Codes(_flat(codes + np.uint8(128 - 16)), _half_float(raw[..., :2]))


def _q5_1(raw: np.ndarray) -> Codes:
    codes = _halves(raw[..., 8:]) | _fifth_bits(raw[..., 4:8])
    return _from_zero(codes + np.uint8(128), _half_float(raw[..., :2]), _half_float(raw[..., 2:4]), 0)


def _q8_0(raw: np.ndarray) -> Codes:
    return Codes(_flat(raw[..., 2:] ^ np.uint8(128)), _half_float(raw[..., :2]))


def _q4_k(raw: np.ndarray) -> Codes:
    scales, least = _super_scales(raw)
    codes = _quarters(raw[..., 16:])
    return _from_zero(codes, scales, least, 8)


def _q5_k(raw: np.ndarray) -> Codes:
    scales, least = _super_scales(raw)
    fifth = (raw[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1  # [rows, blocks, 8, 32]
    codes = _quarters(raw[..., 48:]).reshape(fifth.shape) | (fifth << 4)
    return _from_zero(codes + np.uint8(128), scales, least, 0)


def _q6_k(raw: np.ndarray) -> Codes:
    low = raw[..., :128].reshape(*raw.shape[:-1], 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = raw[..., 128:192].reshape(*raw.shape[:-1], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    shape = (*raw.shape[:-1], 8, 32)
    codes = low.reshape(shape) | (high.reshape(shape) << 4)
    scales = raw[..., 192:208].view(np.int8).astype(np.float32) * _half_float(raw[..., 208:])[..., None]
    return Codes(_flat(codes + np.uint8(128 - 32)), _flat(scales))


def _quarters(raw: np.ndarray) -> np.ndarray:
    """Codes of 4 bits [rows, blocks, 8, 32] of bytes [rows, blocks, 128]: 32 low halves, their high ones, and on."""
    both = raw.reshape(*raw.shape[:-1], 4, 1, 32) >> np.array([0, 4], np.uint8)[:, None] & 15
    codes: np.ndarray = both.reshape(*raw.shape[:-1], 8, 32)
    return codes


def _super_scales(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and least values f32 [rows, 8 blocks] of super-blocks: six bits for each, times a half float for all."""
    packed = raw[..., 4:16].reshape(*raw.shape[:-1], 3, 4)
    first, second, rest = packed[..., 0, :], packed[..., 1, :], packed[..., 2, :]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 2 & 48)], axis=-1).astype(np.float32)
    least = np.concatenate([second & 63, (rest >> 4) | (second >> 2 & 48)], axis=-1).astype(np.float32)
    scales *= _half_float(raw[..., :2])[..., None]
    least *= -_half_float(raw[..., 2:4])[..., None]
    return _flat(scales), _flat(least)


def _from_zero(codes: np.ndarray, scales: np.ndarray, least: np.ndarray, middle: int) -> Codes:
    """Codes whose smallest stands for the least value of its block; `middle` is how far below the code of zero it
    lies."""
    return Codes(_flat(codes), scales, offsets=least + np.float32(middle) * scales)


def _plain(name: str, element: np.dtype) -> Kind:
    return Kind(name, 1, element.itemsize, element)


KINDS: dict[int, Kind] = {
    0: _plain("F32", np.dtype(np.float32)),
    1: _plain("F16", np.dtype(np.float16)),
    30: _plain("BF16", np.dtype(ml_dtypes.bfloat16)),
    2: Kind("Q4_0", 32, 18, None, 4, 4, 32, unpack=_q4_0),
    3: Kind("Q4_1", 32, 20, None, 4, 4, 32, True, _q4_1),
    6: Kind("Q5_0", 32, 22, None, 5, 8, 32, unpack=_q5_0),
    7: Kind("Q5_1", 32, 24, None, 5, 8, 32, True, _q5_1),
    8: Kind("Q8_0", 32, 34, None, 8, 8, 32, unpack=_q8_0),
    12: Kind("Q4_K", _SUPER, 144, None, 4, 4, 32, True, _q4_k),
    13: Kind("Q5_K", _SUPER, 176, None, 5, 8, 32, True, _q5_k),
    14: Kind("Q6_K", _SUPER, 210, None, 6, 8, 16, unpack=_q6_k),
}
"""The types that are read, by GGUF's numbers."""
