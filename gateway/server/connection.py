"""What gunicorn tells of a client's connection, and what it raises while it reads from one."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

READ_ERRORS = (OSError, ParseException)
"""What reading a request's body may raise: the client is gone, or its chunks are malformed."""
_SOCKET = "gunicorn.socket"


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket in a WSGI environment; None under another server."""
    return environ.get(_SOCKET)


def plain_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket if chunks of HTTP/1.1 written to it reach the client as they are: no TLS, no HTTP/1.0."""
    client = client_socket(environ)
    if type(client) is not socket.socket or client.gettimeout() is not None:  # with a timeout, every write may wait
        return None
    return client if environ.get("SERVER_PROTOCOL") == "HTTP/1.1" else None
