"""One retry for an answer whose Triton went down before its client was told a word of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from glmserve.errors import BackendDown

T = TypeVar("T")


def with_one_retry(begin: Callable[[], T], request_id: str) -> T:
    """What `begin` returns; runs it a second time, on another replica, when it raises BackendDown.

    `begin` must return before the client is told anything: for a stream with its first event, else with the whole
    answer.
    """
    try:
        return begin()
    except BackendDown:
        structlog.get_logger().warning("answer_begun_anew", request_id=request_id)
    return begin()
