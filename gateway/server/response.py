"""gunicorn's response, whose head is sent together with the beginning of its body.

If a gateway died between the two, a proxy would hold a head and could no longer ask another gateway.
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
    """Collects what is written to it, in place of a socket."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data
