"""Ends what takes too long and has no timeout of its own: a call between two messages, a body that trickles in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

_LOOK_EVERY_S = 0.25
_JOIN_S = 5.0


class Pulse:
    """One watched call; its reader beats for every message. `is_dead` turns true when the watchdog ended it."""

    def __init__(self, cancel: Callable[[], object], timeout_s: float) -> None:
        self.cancel = cancel
        self.is_dead = False
        self.due_s = time.monotonic() + timeout_s

    def beat(self, timeout_s: float) -> None:
        """From now on, `timeout_s` of silence are too many."""
        self.due_s = time.monotonic() + timeout_s


class Watchdog:
    """One thread that looks at all calls a few times a second; started by the first and ended by `close`.

    Nothing wakes it: a thread that is woken for every call takes Python's lock in turn with the one that answers, which
    cost a third of a millisecond each. So a call is ended up to a quarter of a second late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulses: set[Pulse] = set()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @contextmanager
    def watch(self, cancel: Callable[[], object], timeout_s: float) -> Generator[Pulse]:
        """Calls `cancel` once when the pulse misses its time; the watch ends with the block."""
        pulse = Pulse(cancel, timeout_s)
        with self._lock:
            self._pulses.add(pulse)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        try:
            yield pulse
        finally:
            with self._lock:
                self._pulses.discard(pulse)

    def close(self) -> None:
        """Ends the thread; calls still watched are left to themselves."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            with self._lock:
                late = [pulse for pulse in self._pulses if pulse.due_s <= now]
                self._pulses.difference_update(late)
            for pulse in late:
                pulse.is_dead = True
                pulse.cancel()


def hang_up(connection: socket.socket) -> None:
    """Ends a read or a write that waits on another thread; closing the socket would not."""
    with suppress(OSError):  # closed by now
        connection.shutdown(socket.SHUT_RDWR)


def stop_reading(connection: socket.socket) -> None:
    """Ends a read on another thread as if the client had stopped sending; it can still be answered."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)  # not TLS's own, which would talk to the client
