"""What a worker holds in `app.extensions` and closes when it ends."""

from __future__ import annotations

from flask import Flask

DISCONNECTS = "disconnects"
"""Watches the sockets of clients that wait."""
BODIES = "bodies"
"""Reads request bodies."""
DECODERS = "decoders"
"""The processes that decode images."""
TRACING = "tracing"
"""Sends traces."""
BACKEND = "backend"
"""Speaks to Triton."""
STREAMS = "streams"
"""The thread that reads Triton's streams; outlives the backend, whose channels it ends."""
AUDIT = "audit"
"""The audit log, if there is one; last, since whatever else ends may still be written there."""
CLOSING_ORDER = (DISCONNECTS, BODIES, DECODERS, TRACING, BACKEND, STREAMS, AUDIT)


def close_all(app: Flask) -> None:
    """Closes each resource that this application has, in order."""
    for name in CLOSING_ORDER:
        held = app.extensions.get(name)
        if held is not None:
            held.close()
