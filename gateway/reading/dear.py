"""Tells a body that is dear to read from one that is merely large, without holding Python's lock for long."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.schemas.multipart import FORM, FORMS

SMALL_BYTES = 64 << 10
"""A body of no more bytes is never dear: the worst of them is read in twenty milliseconds."""
SMALL_FORM_BYTES = 1 << 20
"""Of a form, most of whose bytes nobody looks at."""
_MOST_QUICK_MARKS = 8 << 10
"""With as many marks, a small body is read in two or three milliseconds."""
_PIECE_BYTES = 1 << 20
_LONG_NUMBER = 16
_EIGHT_DIGITS = np.uint64(0x0101010101010101)
_LONG_NAME = 4096
_MOST_FORM_MARKS = 16 << 10
"""Commas and opening brackets of a form, each of which may be a value of JSON; files of the largest small form hold
12,000 by chance."""
_QUOTE, _BACKSLASH, _COLON = b'"\\:'
_BLANKS = np.frombuffer(b" \t\r\n", np.uint8)
_FORM_MARKS = b",[{"


def is_quick(body: bytes, mimetype: str) -> bool:
    """Whether it is read in so little time that nobody need wait for it."""
    if len(body) <= _MOST_QUICK_MARKS:
        return True
    if len(body) > SMALL_BYTES:
        return False
    if mimetype == FORM:
        return _form_marks(body) <= _MOST_QUICK_MARKS
    text = np.frombuffer(body, np.uint8)
    return len(_others(text, _digits(text))) <= _MOST_QUICK_MARKS


def is_dear(body: bytes, mimetype: str) -> bool:
    """Whether reading it may take more than a few milliseconds.

    A photo as base64 is large and not dear. What makes a body dear is whatever is not base64: marks of JSON, escapes,
    blanks, characters beyond ASCII, numbers of dozens of digits, which take the square of their length, and names of
    thousands of characters, which are looked up.
    """
    if len(body) <= SMALL_BYTES:
        return False
    if mimetype in FORMS and len(body) > SMALL_FORM_BYTES:
        return True
    if mimetype == FORM:
        return _form_marks(body) > _MOST_FORM_MARKS
    found, count, view = list[NDArray[np.int64]](), 0, memoryview(body)
    for at in range(0, len(body), _PIECE_BYTES):
        piece = np.frombuffer(view[at : at + _PIECE_BYTES], np.uint8)
        digits = _digits(piece)
        if _has_a_long_run(digits):
            return True
        others = _others(piece, digits)
        count += len(others)
        if count > SMALL_BYTES:
            return True
        found.append(others + at)
    return _has_a_long_name(np.frombuffer(body, np.uint8), np.concatenate(found))


def _digits(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (text - ord("0")) < 10


def _others(text: NDArray[np.uint8], digits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of all that is not base64; `digits` says where digits stand."""
    plain = ((text | 32) - ord("a")) < 26
    plain |= digits
    plain |= text == ord("+")
    plain |= text == ord("/")
    return np.flatnonzero(~plain)


def _form_marks(body: bytes) -> int:
    return sum(body.count(mark) for mark in _FORM_MARKS)


def _has_a_long_run(digits: NDArray[np.bool_]) -> bool:
    """Whether digits fill an aligned run: one of twice the length holds such a run wherever it begins."""
    whole = len(digits) // _LONG_NUMBER * _LONG_NUMBER
    eights = digits[:whole].view(np.uint64) == _EIGHT_DIGITS
    return bool((eights[0::2] & eights[1::2]).any())


def _has_a_long_name(text: NDArray[np.uint8], others: NDArray[np.int64]) -> bool:
    """Whether a long string may be followed by a colon; `others` are the places of all that is not base64.

    A quote behind a backslash may end a string or stand in it: it counts as an end and not as a beginning, so that no
    string is taken for a shorter one.
    """
    marks = others[~np.isin(text[others], _BLANKS)]
    said = text[marks]
    is_quote = said == _QUOTE
    ends = np.flatnonzero(is_quote[:-1] & (said[1:] == _COLON))
    begins = marks[is_quote & (text[marks - 1] != _BACKSLASH)]
    before = np.searchsorted(begins, marks[ends]) - 1
    lengths = marks[ends] - np.where(before < 0, 0, begins[np.maximum(before, 0)])
    return bool((lengths > _LONG_NAME).any())
