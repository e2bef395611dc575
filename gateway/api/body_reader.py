"""Reads a request's body: at most so many bytes, with or without a Content-Length, within a timeout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

from werkzeug.wrappers import Request

from gateway.deadline import DEADLINE_HEADER, Deadline, patience_s
from gateway.limits.turns import Turns
from gateway.reading.content_encoding import unpacked
from gateway.reading.dear import SMALL_BYTES, is_dear, is_quick
from gateway.reading.dear_reader import DearReader
from gateway.schemas.multipart import FORMS
from gateway.server.body import pieces_of
from gateway.server.connection import READ_ERRORS, client_socket
from gateway.timeouts import Watchdog, stop_reading
from glmserve.errors import InvalidInput, TooLarge

T = TypeVar("T")
_SPILL_FACTOR = 4


class BodyReader:
    """Reads bodies of at most `max_bytes`, each within `timeout_s`.

    What is not a form may have at most `max_json_bytes`: JSON is turned into objects, which weigh more than files do.
    """

    def __init__(
        self,
        max_bytes: int,
        max_json_bytes: int,
        timeout_s: float,
        when_arrived: Callable[[], str],
        dear: DearReader,
    ) -> None:
        """`when_arrived` is called before anybody looks into a body. It says whose it is, or refuses the request."""
        self._max_bytes = max_bytes
        self._max_json_bytes = min(max_bytes, max_json_bytes)
        self._timeout_s = timeout_s
        self._when_arrived = when_arrived
        self._watchdog = Watchdog()
        self._dear = dear
        self._turns = Turns()

    def read_as(self, request: Request, read: Callable[..., T], *arguments: Any) -> T:
        """What `read(body, *arguments)` makes of the body: a function of a module, whose result can be pickled.

        One that is dear to read is read in another process, in its caller's turn, and one that takes more than a moment
        here, in another turn: threads that read at the same time would only keep Python's lock from everybody else.
        Raises what `read` does, what DearReader does, TooLarge, and InvalidInput when the body breaks off or takes too
        long.
        """
        caller, deadline, body = self._arrived(request)
        if is_quick(body, request.mimetype):
            return read(body, *arguments)
        with self._turns.take(caller, deadline):
            if not is_dear(body, request.mimetype):
                return read(body, *arguments)
        return self._dear.read(caller, read, body, *arguments, within_s=deadline.left_s())

    def close(self) -> None:
        self._watchdog.close()

    def _arrived(self, request: Request) -> tuple[str, Deadline, bytes]:
        """Whose it is, until when it must have been read, and the whole body, unpacked."""
        most = self._max_bytes if request.mimetype in FORMS else self._max_json_bytes
        pieces, count = self._received(request, most)
        caller, deadline = self._when_arrived(), Deadline.after(self._patience_s(request))
        if count > most:
            raise self._too_large(most)
        if request.content_length is not None and count != request.content_length:
            raise _broken()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        encoding = request.headers.get("Content-Encoding", "")
        if not encoding:
            return caller, deadline, body
        turns = self._dear.turns if len(body) > SMALL_BYTES else self._turns  # a small one may become large
        with turns.take(caller, deadline):
            return caller, deadline, unpacked(body, encoding, most)

    def _received(self, request: Request, most: int) -> tuple[list[bytes], int]:
        """The body in pieces, of which none is kept once they are more than `most` bytes, and how many bytes came.

        Werkzeug's own limit silently truncates a chunked body. We read some more of a body that is too large and throw
        it away: a client that is still sending would see a closed connection instead of its 413.
        """
        connection = client_socket(request.environ)
        if connection is None:
            return _taken(request.stream, most)
        with self._watchdog.watch(lambda: stop_reading(connection), self._timeout_s) as pulse:
            received = _taken(request.stream, most)
        if pulse.is_dead:
            raise _broken()
        return received

    def _patience_s(self, request: Request) -> float:
        """How long a body may wait for its turn and be read; a wrong header is refused by who answers."""
        wanted_s = patience_s(request.headers.get(DEADLINE_HEADER), self._timeout_s)
        return self._timeout_s if math.isnan(wanted_s) else wanted_s

    def _too_large(self, most: int) -> TooLarge:
        of_a_form = "" if most == self._max_bytes else f", and {self._max_bytes} of a form with files"
        return TooLarge(f"The request body is too large: at most {most} bytes are accepted{of_a_form}.")


def _taken(stream: IO[bytes], most: int) -> tuple[list[bytes], int]:
    pieces: list[bytes] = []
    count = 0
    for piece in _pieces(stream):
        count += len(piece)
        if count <= most:
            pieces.append(piece)
        else:
            pieces.clear()
        if count > most * _SPILL_FACTOR:
            break
    return pieces, count


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces_of(stream)
    except READ_ERRORS as error:
        raise _broken() from error


def _broken() -> InvalidInput:
    return InvalidInput("The request body did not arrive whole.")
