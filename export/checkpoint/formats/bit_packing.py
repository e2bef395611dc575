"""Codes of a few bits laid end to end in 32-bit words, the first in the lowest bits."""

from __future__ import annotations

import numpy as np

WORD_BITS = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbours the codes of one of AWQ's words are, from the lowest bits up."""


def unpack_columns(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes u8 [rows, columns * codes a word] of words i32 [rows, columns]; `bits` is 2, 4 or 8."""
    count = WORD_BITS // bits
    shifts = np.arange(count, dtype=np.uint32) * np.uint32(bits)
    codes = np.ascontiguousarray(words).view(np.uint32)[..., None] >> shifts
    return (codes & np.uint32((1 << bits) - 1)).astype(np.uint8).reshape(len(words), -1)


def unpack_rows(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes u8 [columns, rows * codes a word] of words i32 [rows, columns], of which each holds codes of one column:
    turned round, so that a column's codes lie side by side."""
    return unpack_columns(np.ascontiguousarray(words.T), bits)


def in_awq_order(codes: np.ndarray) -> np.ndarray:
    """Codes [rows, columns] as AWQ's words give them, with each eight columns in their own order."""
    turned = np.empty_like(codes).reshape(len(codes), -1, len(AWQ_ORDER))
    turned[..., list(AWQ_ORDER)] = codes.reshape(turned.shape)
    return turned.reshape(codes.shape)
