"""Ends calls that fall silent: gRPC's own iteration has no timeout between two messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Pulse:
    """One watched call; its reader beats for every message. `is_dead` turns true when the watchdog ended it."""

    def __init__(self, cancel: Callable[[], object], wake: Callable[[], object], timeout_s: float) -> None:
        self.cancel = cancel
        self.is_dead = False
        self.due_s = time.monotonic() + timeout_s
        self._wake = wake

    def beat(self, timeout_s: float) -> None:
        """From now on, `timeout_s` of silence are too many."""
        before, self.due_s = self.due_s, time.monotonic() + timeout_s
        if self.due_s < before:
            self._wake()


class Watchdog:
    """One thread that watches all calls; started by the first and ended by `close`.

    Most beats move a call's end later, so the thread sleeps until the earliest end it knows of and a call costs it
    nothing while it speaks. A new call, and a beat that moves an end nearer, wake it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pulses: set[Pulse] = set()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def watch(self, cancel: Callable[[], object], timeout_s: float) -> Generator[Pulse]:
        """Calls `cancel` once when the pulse misses its time; the watch ends with the block."""
        pulse = Pulse(cancel, self._wake, timeout_s)
        with self._changed:
            self._pulses.add(pulse)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield pulse
        finally:
            with self._changed:
                self._pulses.discard(pulse)

    def close(self) -> None:
        """Ends the thread; calls still watched are left to themselves."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                now = time.monotonic()
                late = [pulse for pulse in self._pulses if pulse.due_s <= now]
                self._pulses.difference_update(late)
                if not late:
                    ends = [pulse.due_s for pulse in self._pulses]
                    self._changed.wait(min(ends) - now if ends else None)
            for pulse in late:
                pulse.is_dead = True
                pulse.cancel()
