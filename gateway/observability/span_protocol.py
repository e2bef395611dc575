"""What the gateway needs from a tracing library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

EndSpan = Callable[[str, int, dict[str, Any]], None]
"""Ends a span; takes the route, the status and the facts of its request."""


class Spans(Protocol):
    """Makes spans and sends them."""

    def begin(self, traceparent: str) -> tuple[str, EndSpan]:
        """Begins a span in the given trace or in a new one; returns the traceparent to pass on and its end."""
        ...

    def close(self) -> None: ...
