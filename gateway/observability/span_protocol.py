"""What the gateway wants of whoever makes spans of traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

EndSpan = Callable[[str, int, dict[str, Any]], None]
"""Ends a span with a route, a status, and the facts of its request."""


class Spans(Protocol):
    """Makes spans and sends them somewhere."""

    def begin(self, traceparent: str) -> tuple[str, EndSpan]:
        """A span that continues a trace, or begins one: what to pass on, and how to end it."""
        ...

    def close(self) -> None: ...
