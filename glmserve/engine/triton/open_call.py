"""Keeps apart a call's last response and the question whether the call was cancelled."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from glmserve.engine.request import Event
from glmserve.engine.triton.response_sender import Send


class OpenCall:
    """One call of Triton's. Safe to share between threads.

    Triton frees a call's state with its last response, and the whole server dies of a question that meets that moment.
    """

    def __init__(self, send: Send, is_cancelled: Callable[[], bool]) -> None:
        """`send` and `is_cancelled` are Triton's own; nobody else may use them."""
        self._send, self._is_cancelled = send, is_cancelled
        self._lock = Lock()
        self._has_ended = False

    def send(self, events: list[Event]) -> None:
        """Passes events on in order; waits for a question under way before the last one."""
        if not events[-1].is_last:
            self._send(events)
            return
        with self._lock:
            self._has_ended = True
            self._send(events)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for an answer: the client has left, or the last response was sent."""
        if self._has_ended:
            return True
        with self._lock:
            return self._has_ended or self._is_cancelled()
