"""Timeouts for calls that have none of their own: silence between two messages, a body that trickles in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

_CHECK_EVERY_S = 0.25
_JOIN_S = 5.0


class Pulse:
    """One watched call; its reader calls `beat` for every message. `is_dead` is true once the watchdog has ended it,
    `has_ended` once the block that is watched has."""

    def __init__(self, cancel: Callable[[], object], timeout_s: float) -> None:
        self.cancel = cancel
        self.is_dead, self.has_ended = False, False
        self.due_s = time.monotonic() + timeout_s

    def beat(self, timeout_s: float) -> None:
        """Restarts the timeout."""
        self.due_s = time.monotonic() + timeout_s


class Watchdog:
    """One thread that checks all calls four times a second; the first call starts it, and `close` ends it.

    Calls do not wake it, so it may end one a quarter of a second late. Waking it for every call cost a third of a
    millisecond each, because it then competes with the request's thread for Python's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulses: set[Pulse] = set()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @contextmanager
    def watch(self, cancel: Callable[[], object], timeout_s: float) -> Generator[Pulse]:
        """Calls `cancel` once if the timeout passes before the block ends."""
        pulse = Pulse(cancel, timeout_s)
        with self._lock:
            self._pulses.add(pulse)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        try:
            yield pulse
        finally:
            pulse.has_ended = True
            with self._lock:
                self._pulses.discard(pulse)

    def close(self) -> None:
        """Ends the thread; calls that are still watched go on without a timeout."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closing.wait(_CHECK_EVERY_S):
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
