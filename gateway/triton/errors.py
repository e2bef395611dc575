"""Triton's words for a failure become an error of ours; the words themselves only go into the log."""

from __future__ import annotations

import structlog

from glmserve.errors import BackendDown, GlmServeError, from_wire

_DOWN = ("unknown model", "no available versions", "not ready", "not found", "stub process", "unavailable")


def error_of(text: str) -> GlmServeError:
    """The error that the engine sent, or what a text of Triton's own means to whoever asked."""
    ours = from_wire(text)
    if ours is not None:
        return ours
    log_refusal("text", text)
    return BackendDown() if any(words in text.lower() for words in _DOWN) else GlmServeError()


def log_refusal(status: str, text: str) -> None:
    """A warning for the operator; a client never reads this text."""
    structlog.get_logger().warning("triton_refused", status=status, text=text[:200])
