"""Where the web server keeps a connection's socket."""

from __future__ import annotations

CLIENT_SOCKET = "gunicorn.socket"
"""The socket's key in the WSGI environment under gunicorn; under other servers it is missing."""
