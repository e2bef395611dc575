"""The parts of a form as bytes: what an HTML form, `curl -F` or `curl -d` sends."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData, State

from glmserve.errors import InvalidInput

FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
FORMS = (FORM, URLENCODED)
_PIECE_BYTES = 1 << 20
_MOST_NAME_BYTES = 256
_MOST_HEAD_BYTES = 8192
"""In a part's head, and before the first part: reading either takes half a second for each megabyte."""
_MOST_HEADS_BYTES = 24 << 10
"""In all heads together."""
_HEAD_END = re.compile(rb"\r\n\r\n|\r\r|\n\n")


@dataclass(frozen=True)
class FormPart:
    """One field or file; `charset` is what its own head says of its text, empty where it says nothing."""

    name: str
    data: bytes
    is_file: bool = False
    charset: str = ""


def read_parts(body: bytes, content_type: str, most_parts: int) -> list[FormPart]:
    """All parts in order; raises InvalidInput for a body that is no form, or one of more than `most_parts`."""
    mimetype, options = parse_options_header(content_type)
    try:
        if mimetype == URLENCODED:
            return list(_fields(body, options.get("charset", ""), most_parts))
        return list(_parts(body, options["boundary"].encode("latin-1"), options.get("charset", ""), most_parts))
    except Exception as error:  # Werkzeug raises ValueError, its own 413, and more for broken boundaries
        kind = "form" if mimetype == URLENCODED else "multipart form"
        raise InvalidInput(f"The request body is not a {kind} of at most {most_parts} parts.", "image") from error


def _parts(body: bytes, boundary: bytes, charset: str, most_parts: int) -> Iterator[FormPart]:
    decoder = MultipartDecoder(boundary, max_form_memory_size=len(body) + 1, max_parts=most_parts)
    head: Field | File | None = None
    pieces: list[bytes] = []
    at, until, heads_bytes = 0, _MOST_HEAD_BYTES, 0
    while True:
        _check_head(decoder)
        unread = len(decoder.buffer)
        event = decoder.next_event()
        if isinstance(event, NeedData):
            if at and decoder.state is State.PREAMBLE:
                raise ValueError("no part begins")
            decoder.receive_data(body[at:until] if at < len(body) else None)
            at, until = until, until + _PIECE_BYTES
        elif isinstance(event, Epilogue):
            return
        elif isinstance(event, Field | File):
            head, pieces = event, []
            heads_bytes += unread - len(decoder.buffer)
            if heads_bytes > _MOST_HEADS_BYTES:
                raise ValueError("the parts' heads are too long")
        elif isinstance(event, Data) and head is not None:
            pieces.append(event.data)
            if not event.more_data:
                own = parse_options_header(head.headers.get("Content-Type"))[1].get("charset")
                yield FormPart(head.name or "", b"".join(pieces), isinstance(head, File), own or charset)


def _check_head(decoder: MultipartDecoder) -> None:
    """Raises ValueError when a part's head comes next and does not end soon."""
    is_long = decoder.state is State.PART and len(decoder.buffer) > _MOST_HEAD_BYTES
    if is_long and not _HEAD_END.search(decoder.buffer, 0, _MOST_HEAD_BYTES):
        raise ValueError("a part's head is too long")


def _fields(body: bytes, charset: str, most_parts: int) -> Iterator[FormPart]:
    if body.count(b"&") >= most_parts:
        raise ValueError("too many fields")
    for pair in filter(None, body.split(b"&")):
        name, _, value = pair.partition(b"=")
        yield FormPart(
            _unescaped(name[:_MOST_NAME_BYTES]).decode("utf-8", "replace"), _unescaped(value), False, charset
        )


def _unescaped(text: bytes) -> bytes:
    """Without an object for each escape: quoted-printable text is the same but for its mark."""
    return binascii.a2b_qp(text.replace(b"+", b" ").replace(b"=", b"=3D").replace(b"%", b"="))
