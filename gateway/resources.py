"""What a worker holds in `app.extensions` and closes when it ends."""

from __future__ import annotations

from flask import Flask

DISCONNECTS = "disconnects"
"""The thread that watches the sockets of waiting clients."""
BODIES = "bodies"
"""The reader of request bodies, which has a thread for timeouts."""
DEAR = "dear"
"""The process that reads dear bodies."""
DECODERS = "decoders"
"""The processes that decode images."""
TRACING = "tracing"
"""The exporter of traces."""
BACKEND = "backend"
"""The connections to Triton."""
STREAMS = "streams"
"""The thread that reads Triton's streams; closed after the backend, whose channels it closes."""
AUDIT = "audit"
"""The audit log, if there is one; closed last, because the others may still write to it while they close."""
CLOSING_ORDER = (DISCONNECTS, BODIES, DEAR, DECODERS, TRACING, BACKEND, STREAMS, AUDIT)


def close_all(app: Flask) -> None:
    """Closes each resource that this application has, in order."""
    for name in CLOSING_ORDER:
        held = app.extensions.get(name)
        if held is not None:
            held.close()
