"""Tells a body that is dear to read from one that is merely large, without holding Python's lock for long."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.schemas.multipart import FORM

SMALL_BYTES = 64 << 10
"""A body of no more bytes is never dear: the worst of them is read in two milliseconds."""
SMALL_FORM_BYTES = 1 << 20
"""Of a form with files, most of whose bytes nobody looks at."""
_PIECE_BYTES = 1 << 20
_LONG_NUMBER = 4096


def is_dear(body: bytes, mimetype: str) -> bool:
    """Whether reading it may take more than a few milliseconds.

    A photo as base64 is large and not dear. What makes a body dear is whatever is not base64: marks of JSON, escapes,
    blanks, characters beyond ASCII, and numbers of thousands of digits.
    """
    if mimetype == FORM:
        return len(body) > SMALL_FORM_BYTES
    if len(body) <= SMALL_BYTES:
        return False
    others, view = 0, memoryview(body)
    for at in range(0, len(body), _PIECE_BYTES):
        piece = np.frombuffer(view[at : at + _PIECE_BYTES], np.uint8)
        digits = (piece - ord("0")) < 10
        if _has_a_long_run(digits):
            return True
        plain = ((piece | 32) - ord("a")) < 26
        plain |= digits
        plain |= piece == ord("+")
        plain |= piece == ord("/")
        others += len(piece) - int(np.count_nonzero(plain))
        if others > SMALL_BYTES:
            return True
    return False


def _has_a_long_run(digits: NDArray[np.bool_]) -> bool:
    """Whether digits fill an aligned run: one of twice the length holds such a run wherever it begins."""
    whole = len(digits) // _LONG_NUMBER * _LONG_NUMBER
    return bool(digits[:whole].reshape(-1, _LONG_NUMBER).all(axis=1).any())
