"""Translates Triton's error texts into our errors; the texts themselves go into the log only."""

from __future__ import annotations

import structlog

from glmserve.errors import BackendDown, GlmServeError, InvalidInput, Overloaded, from_wire

_DOWN = ("unknown model", "no available versions", "not ready", "not found", "stub process", "unavailable")
_BUSY = ("health mutex", "shared memory pool")
"""A model's process that does not come to its turn on a busy machine, or full shared memory; others are answered."""


def error_of(text: str) -> GlmServeError:
    """The error that the engine sent, or the one that a text of Triton's own stands for."""
    ours = from_wire(text)
    if ours is not None:
        return ours
    log_refusal("text", text)
    said = text.lower()
    if any(words in said for words in _BUSY):
        return Overloaded()
    return BackendDown() if any(words in said for words in _DOWN) else GlmServeError()


def log_refusal(status: str, text: str) -> None:
    """Warns the operator; clients never see this text."""
    structlog.get_logger().warning("triton_refused", status=status, text=text[:200])


def lacks_places(error: GlmServeError) -> bool:
    """Whether an engine refused an answer because it has no places for it: not now, or never; a larger one may."""
    return isinstance(error, Overloaded) or (type(error) is InvalidInput and error.field in ("n", "prompt"))
