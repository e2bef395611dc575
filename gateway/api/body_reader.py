"""Reads a request's body: at most so many bytes, with or without a Content-Length, within a timeout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from werkzeug.wrappers import Request

from gateway.server.connection import READ_ERRORS, client_socket
from gateway.timeouts import Watchdog, stop_reading
from glmserve.errors import InvalidInput, TooLarge

_PIECE_BYTES = 1 << 20  # gunicorn copies its read-ahead for every piece
_SPILL_FACTOR = 4


class BodyReader:
    """Reads bodies of at most `max_bytes`, each within `timeout_s`."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._watchdog = Watchdog()

    def read(self, request: Request) -> bytes:
        """The whole body; raises TooLarge, or InvalidInput when it breaks off or takes too long.

        Werkzeug's own limit silently truncates a chunked body. We read some more of a body that is too large and throw
        it away: a client that is still sending would see a closed connection instead of its 413.
        """
        connection = client_socket(request.environ)
        if connection is None:
            return self._read(request)
        with self._watchdog.watch(lambda: stop_reading(connection), self._timeout_s) as pulse:
            body = self._read(request)
        if pulse.is_dead:
            raise _broken()
        return body

    def close(self) -> None:
        self._watchdog.close()

    def _read(self, request: Request) -> bytes:
        pieces: list[bytes] = []
        count = 0
        for piece in _pieces(request.stream):
            count += len(piece)
            if count <= self._max_bytes:
                pieces.append(piece)
            else:
                pieces.clear()
            if count > self._max_bytes * _SPILL_FACTOR:
                break
        if count > self._max_bytes:
            raise TooLarge(f"The request body is too large: at most {self._max_bytes} bytes are accepted.")
        if request.content_length is not None and count != request.content_length:
            raise _broken()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := stream.read(_PIECE_BYTES):
            yield piece
    except READ_ERRORS as error:
        raise _broken() from error


def _broken() -> InvalidInput:
    return InvalidInput("The request body did not arrive whole.")
