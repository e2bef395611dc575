"""Sends every answer's events from one thread: Triton allows each response sender one thread only.

A response costs about 100 microseconds. So the tokens that gather while others are being sent leave in one response,
and the thread rests three times as long as it worked; a first token and an ending are not made to wait.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from glmserve.engine.request import Event, Logprobs, Tokens

_log = logging.getLogger(__name__)
_REST_PER_WORK = 3.0
_LONGEST_REST_S = 0.03
_JOIN_S = 10.0

Send = Callable[[list[Event]], None]
"""Sends an answer's next events in order; the last of all may only come at the end of a list."""


@dataclass(eq=False)
class _Channel:
    """One answer's way out. Its producer appends, the outbox's thread takes; each is one atomic step of a list."""

    send: Send
    is_whole: bool = False
    when_ended: Callable[[], None] | None = None
    events: list[Event] = field(default_factory=list)
    is_queued: bool = False
    has_begun: bool = False


class ResponseSender:
    """Owns the thread that sends. An answer's events are bounded by its tokens, so nothing here grows without end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Channel | None] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def channel(
        self, send: Send, is_whole: bool = False, when_ended: Callable[[], None] | None = None
    ) -> Callable[[Event], None]:
        """The `emit` of one answer; one that `is_whole` is sent at its end, `when_ended` runs with its last event."""
        channel = _Channel(send, is_whole, when_ended)
        return lambda event: self._post(channel, event)

    def close(self) -> None:
        """Sends what was posted, then ends the thread."""
        self._queue.put(None)
        self._urgent.set()
        self._thread.join(_JOIN_S)

    def _post(self, channel: _Channel, event: Event) -> None:
        with self._lock:
            channel.events.append(event)
            if channel.is_whole and not event.is_last:
                return
            is_new, channel.is_queued = not channel.is_queued, True
        if is_new:
            self._queue.put(channel)
        if event.is_last or not channel.has_begun:
            channel.has_begun = True
            self._urgent.set()
        if event.is_last and channel.when_ended is not None:
            channel.when_ended()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            began = time.monotonic()
            round_, is_closing = [first], first is None
            self._urgent.clear()  # before the rest is taken: what is posted from here on wakes the thread again
            while not self._queue.empty():
                round_.append(self._queue.get())
            for channel in round_:
                if channel is None:
                    is_closing = True
                else:
                    self._flush(channel)
            if is_closing and self._queue.empty():
                return
            if is_closing:
                self._queue.put(None)
            else:
                self._urgent.wait(min(_LONGEST_REST_S, _REST_PER_WORK * (time.monotonic() - began)))

    def _flush(self, channel: _Channel) -> None:
        with self._lock:
            events, channel.events = channel.events, []
            channel.is_queued = False
        try:
            channel.send(_joined(events))
        except Exception:  # one answer's receiver must not stop the others
            _log.exception("an answer could not be sent")


def _joined(events: list[Event]) -> list[Event]:
    """The same events with neighbouring tokens put together."""
    joined: list[Event] = []
    for event in events:
        before = joined[-1] if joined else None
        if isinstance(event, Tokens) and isinstance(before, Tokens):
            joined[-1] = Tokens(before.tokens + event.tokens, _both(before.logprobs, event.logprobs))
        else:
            joined.append(event)
    return joined


def _both(first: Logprobs | None, second: Logprobs | None) -> Logprobs | None:
    if first is None or second is None:
        return first or second
    return Logprobs(np.concatenate([first.ids, second.ids]), np.concatenate([first.values, second.values]))
