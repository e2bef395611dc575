"""gunicorn's response, whose head leaves together with the beginning of its body.

A gateway that dies between the two would leave a proxy with a head, after which it cannot ask another gateway any more.
"""

from __future__ import annotations

from typing import Any

from gunicorn.http.wsgi import Response  # type: ignore[import-untyped]


class JoinedResponse(Response):  # type: ignore[misc]
    """One write for a whole answer, and for a stream's head and first event."""

    sock: Any

    def write(self, arg: bytes) -> None:
        if self.headers_sent:
            super().write(arg)
            return
        client, gathered = self.sock, _Gathered()
        self.sock = gathered
        try:
            super().write(arg)
        finally:
            self.sock = client
        client.sendall(gathered.data)


class _Gathered:
    """Stands in for a socket, and keeps what it is given."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data
