"""An image inside a data URL (RFC 2397): where its data begins, and how it is written there."""

from __future__ import annotations

import binascii
import re

_MOST_HEAD_CHARS = 1024
_HEAD = re.compile(r'\s*data:([^,;"]*+)((?:;(?:[^,;"]|"[^"]*+")*+)*+),', re.IGNORECASE)
_SCHEME = re.compile(r"\s*data:", re.IGNORECASE)
_BASE64 = "base64"
_NOT_ESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_data_url(text: str) -> bool:
    return _SCHEME.match(text, 0, _MOST_HEAD_CHARS) is not None


def read_head(text: str) -> tuple[int, bool] | None:
    """Where the data begins, and whether it is base64; None where the head never ends.

    The media type and its other parameters say nothing that the file itself does not know better.
    """
    head = _HEAD.match(text, 0, _MOST_HEAD_CHARS)
    if head is None:
        return None
    marks = [head[1], *head[2].split(";")]
    return head.end(), any(mark.strip().lower() == _BASE64 for mark in marks)


def percent_decoded(text: str, start: int) -> bytes:
    """The bytes of ASCII from `start` on, where `%41` is an A; raises ValueError for an escape without two digits.

    Quoted-printable text is the same but for its mark, and is read without an object for each escape.
    """
    if _NOT_ESCAPED.search(text, start):
        raise ValueError("an escape without two digits")
    return binascii.a2b_qp(text[start:].encode("ascii").replace(b"=", b"=3D").replace(b"%", b"="))


def percent_decoded_bytes(text: str, start: int) -> int:
    """How many bytes that will be."""
    return len(text) - start - 2 * text.count("%", start)
