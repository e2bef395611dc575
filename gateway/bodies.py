"""Reads a request's body: counted, whether or not it names its length, and within a bounded time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import IO

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.wrappers import Request

from glmserve.errors import InvalidInput, TooLarge

_PIECE_BYTES = 1 << 16
_SPILL_FACTOR = 4
CLIENT_SOCKET = "gunicorn.socket"
"""Where gunicorn keeps a connection's socket in the WSGI environment; elsewhere a read has no time limit."""


def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body; raises TooLarge above `max_bytes` and InvalidInput when it breaks off or takes too long.

    Werkzeug's own limit cuts a chunked body short without a word. And a body that is too large is read on for a while
    and thrown away: a client that is still sending would meet a closed connection instead of its 413.
    """
    give_up = time.monotonic() + timeout_s
    pieces: list[bytes] = []
    count = 0
    for piece in _pieces(request.stream, request.environ.get(CLIENT_SOCKET), give_up):
        count += len(piece)
        if count <= max_bytes:
            pieces.append(piece)
        else:
            pieces.clear()
        if count > max_bytes * _SPILL_FACTOR:
            break
    if count > max_bytes:
        raise TooLarge(f"The request body is too large: at most {max_bytes} bytes are accepted.")
    if request.content_length is not None and count != request.content_length:
        raise _broken()
    return b"".join(pieces)


def _pieces(stream: IO[bytes], connection: socket.socket | None, give_up_s: float) -> Iterator[bytes]:
    before = connection.gettimeout() if connection else None
    try:
        while True:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise _broken()
            if connection:
                connection.settimeout(left_s)
            piece = stream.read(_PIECE_BYTES)
            if not piece:
                return
            yield piece
    except (OSError, ParseException) as error:  # gone, silent for too long, or chunks that are none
        raise _broken() from error
    finally:
        if connection:
            connection.settimeout(before)


def _broken() -> InvalidInput:
    return InvalidInput("The request body did not arrive whole.")
