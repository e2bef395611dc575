"""Sends the events of all requests from one thread, because a Triton response sender may be used by one thread only.

A response costs about 100 microseconds. So tokens that gather while others are sent go into one response, and the
thread rests three times as long as it worked. First tokens and endings are sent without that rest.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from glmserve.engine.request import Event, Failed, Logprobs, Tokens

_log = logging.getLogger(__name__)
_REST_PER_WORK = 3.0
_LONGEST_REST_S = 0.03
_JOIN_S = 10.0

Send = Callable[[list[Event]], None]
"""Sends a request's next events in order; its last event may only end a list."""


@dataclass(eq=False)
class _Channel:
    """The unsent events of one request: the engine appends, the sender's thread takes them, both under the lock."""

    send: Send
    is_whole: bool = False
    when_ended: Callable[[], None] | None = None
    events: list[Event] = field(default_factory=list)
    is_queued: bool = False
    has_begun: bool = False


class ResponseSender:
    """Owns the sending thread. A request has no more events than tokens, which bounds what waits here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Channel | None] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name="response sender", daemon=True)
        self._thread.start()

    def channel(
        self, send: Send, is_whole: bool = False, when_ended: Callable[[], None] | None = None
    ) -> Callable[[Event], None]:
        """The `emit` of one request; with `is_whole`, all its events are sent together at its end, or its error alone.

        `when_ended` runs with the last one.
        """
        channel = _Channel(send, is_whole, when_ended)
        return lambda event: self._post(channel, event)

    def close(self) -> None:
        """Sends the remaining events, then ends the thread."""
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
            self._urgent.clear()  # before the rest is taken, so that later events wake the thread again
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
        if channel.is_whole and isinstance(events[-1], Failed):
            events = events[-1:]  # behind a response Triton loses it on its way to `glm4v_whole`, which waits for ever
        try:
            channel.send(_joined(events))
        except Exception:  # one failing receiver must not stop the others
            _log.exception("an answer could not be sent")


def _joined(events: list[Event]) -> list[Event]:
    """The same events with adjacent tokens of one answer merged."""
    joined: list[Event] = []
    for event in events:
        before = joined[-1] if joined else None
        if isinstance(event, Tokens) and isinstance(before, Tokens) and event.number == before.number:
            logprobs = _both(before.logprobs, event.logprobs)
            joined[-1] = Tokens(before.tokens + event.tokens, logprobs, event.number)
        else:
            joined.append(event)
    return joined


def _both(first: Logprobs | None, second: Logprobs | None) -> Logprobs | None:
    if first is None or second is None:
        return first or second
    return Logprobs(np.concatenate([first.ids, second.ids]), np.concatenate([first.values, second.values]))
