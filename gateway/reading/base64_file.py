"""The file in a base64 string or a data URL, in whatever way people write it."""

from __future__ import annotations

import re

import pybase64

from gateway.reading.data_url import is_data_url, percent_decoded, percent_decoded_bytes, read_head
from gateway.reading.sent_as import AN_IMAGE, SentAs

SMALL_CHARS = 256 << 10
"""Base64 of no more characters is read in three milliseconds, however it is written."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"
_PADDING = 2  # bytes that padding makes a file look larger than it is


def bytes_of_base64(text: str, max_bytes: int, field: str = "image", sent_as: SentAs = AN_IMAGE) -> bytes:
    """The file in a base64 string or data URL; either alphabet, line breaks and missing padding are fine.

    Raises TooLarge, and the error of what it was `sent_as` for a text that holds no file.
    """
    start, is_base64 = 0, True
    if is_data_url(text):
        head = read_head(text)
        if head is None:
            raise sent_as.error(
                f"The field {field} is a data URL without data: it must be base64, or a URL that begins with "
                f"data:{sent_as.name}/...;base64,",
                field,
            )
        start, is_base64 = head
    if not text.isascii() and _NOT_ASCII.search(text, start):  # a copy of any other text may weigh four times as much
        raise sent_as.error(f"The field {field} is not valid base64.", field)
    data = (
        _packed_in(text[start:], max_bytes, field, sent_as)
        if is_base64
        else _escaped_in(text, start, max_bytes, field, sent_as)
    )
    if len(data) > max_bytes:
        raise sent_as.too_large(max_bytes, field)
    if not data:
        raise sent_as.error(f"The field {field} is empty.", field)
    return data


def plain_file(text: str, max_bytes: int) -> bytes | None:
    """The file in base64 as programs write it, in one pass; None for any other text, and for a larger file."""
    start, is_base64 = (read_head(text) or (0, False)) if is_data_url(text) else (0, True)
    if not is_base64 or (len(text) - start) * 3 // 4 > max_bytes + _PADDING:
        return None
    data = _strictly(text[start:])
    return data if data and len(data) <= max_bytes else None


def file_of(packed: bytes, max_bytes: int, field: str, sent_as: SentAs) -> bytes:
    """The same of a string in UTF-8."""
    return bytes_of_base64(packed.decode("utf-8", "surrogatepass"), max_bytes, field, sent_as)


def _packed_in(packed: str, max_bytes: int, field: str, sent_as: SentAs) -> bytes:
    data = _strictly(packed) if len(packed) * 3 // 4 <= max_bytes + _PADDING else None
    return _leniently(packed, max_bytes, field, sent_as) if data is None else data


def _escaped_in(text: str, start: int, max_bytes: int, field: str, sent_as: SentAs) -> bytes:
    if percent_decoded_bytes(text, start) > max_bytes:
        raise sent_as.too_large(max_bytes, field)
    try:
        return percent_decoded(text, start)
    except ValueError:
        raise sent_as.error(
            f"The field {field} is a data URL without ;base64, and holds a % without two hexadecimal digits.", field
        ) from None


def _strictly(packed: str) -> bytes | None:
    """What programs write, in one pass; None for anything else."""
    try:
        return pybase64.b64decode(packed, validate=True)
    except ValueError:
        return None


def _leniently(packed: str, max_bytes: int, field: str, sent_as: SentAs) -> bytes:
    if "%" in packed:  # a URL may write +, / and = as escapes
        packed = _escaped_in(packed, 0, 2 * max_bytes, field, sent_as).decode("latin-1")
    letters = packed.encode("ascii").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    if len(letters) * 3 // 4 > max_bytes:
        raise sent_as.too_large(max_bytes, field)
    try:
        return pybase64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except ValueError:
        raise sent_as.error(f"The field {field} is not valid base64.", field) from None
