"""One more try for an answer whose Triton went down before its client was told a word of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import structlog

from gateway.chat.generation import Event, Piece
from glmserve.errors import BackendDown


def with_one_retry(begin: Callable[[], Generator[Event]], request_id: str, is_whole: bool) -> Generator[Event]:
    """The events of an answer, begun anew once where that harms nobody.

    A stream may begin anew until its first event. An answer that is handed out whole may until its end, so none of its
    pieces leave here.
    """
    was_told = False
    try:
        with closing(begin()) as events:
            for event in events:
                if is_whole and isinstance(event, Piece):
                    continue
                was_told = True
                yield event
        return
    except BackendDown:
        if was_told:
            raise
    structlog.get_logger().warning("answer_begun_anew", request_id=request_id)
    yield from begin()
