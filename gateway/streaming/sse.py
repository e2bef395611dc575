"""Server-sent events: an answer while it grows, with a sign of life until its first word."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator
from typing import Any

from gateway.chat.generation import Event
from gateway.triton.backend import Cancellation

MIMETYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
HEARTBEAT = ": still working\n\n"
_LEAVE_S = 5.0
_WRITE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps would make one each time


def data(values: Any) -> str:
    """One event."""
    return f"data: {_WRITE(values)}\n\n"


class FirstEventWaiter:
    """An answer's events, the first of them awaited on another thread so that whoever waits can say that it lives.

    `wait` and then `events` are for one thread; `close` gives the answer up wherever it is.
    """

    def __init__(self, events: Generator[Event], cancellation: Cancellation) -> None:
        self._events = events
        self._cancellation = cancellation
        self._first: list[Event] = []
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._pull, name="first word", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether the first event is there; raises what the answer failed with instead."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
            self._thread = None  # one that has ended still weighs kilobytes, for as long as the answer takes
        if self._failure is not None:
            raise self._failure
        return True

    def events(self, heartbeat_s: float) -> Iterator[Event | None]:
        """Every event; None is a sign of life."""
        while not self.wait(heartbeat_s):
            yield None
        yield from self._first
        yield from self._events

    def close(self) -> None:
        """Cancels what still runs; harmless at the end of an answer."""
        self._cancellation.say()
        if self._thread is not None:
            self._thread.join(_LEAVE_S)
        if self._thread is None or not self._thread.is_alive():
            self._events.close()

    def _pull(self) -> None:
        try:
            self._first.append(next(self._events))
        except BaseException as error:  # handed to the thread that waits
            self._failure = error
