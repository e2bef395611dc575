"""A request from its arrival to its slot: it leaves within half a second of its deadline, or of being cancelled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from glmserve.engine import metrics
from glmserve.engine.metrics import Meter
from glmserve.engine.request import Event, Failed
from glmserve.engine.scheduler.wait_queue import Tickets
from glmserve.errors import Cancelled, DeadlineExceeded, GlmServeError, Overloaded

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.2


class Preparation:
    """One request that has no slot yet. Whoever ends it first does so alone: later events are dropped.

    Safe to share between threads. `arrived` and `deadline` are `time.monotonic()` instants.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
        deadline: float,
        tickets: Tickets,
        meter: Meter,
    ) -> None:
        self.arrived, self.deadline = time.monotonic(), deadline
        self.tickets = tickets
        self._emit, self._is_cancelled, self._meter = emit, is_cancelled, meter
        self._lock = threading.Lock()
        self._has_ended = False
        self._at_end: list[Callable[[], None]] = []

    def emit(self, event: Event) -> None:
        """Passes an event on, unless the last one has been."""
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = event.is_last
        self._emit(event)

    def is_cancelled(self) -> bool:
        """Whether its client has left, or it has ended; this is what the engine asks."""
        if self._has_ended:
            return True
        try:
            return self._is_cancelled()
        except Exception:
            _log.exception("a request cannot be asked whether it is cancelled")
            return True  # its client cannot be reached

    def has_left(self) -> bool:
        """Whether it was cancelled, is out of time, or has ended."""
        return time.monotonic() >= self.deadline or self.is_cancelled()

    @property
    def is_over(self) -> bool:
        """Whether it has a slot, or has ended: then it is no longer ours."""
        return self._has_ended or self.tickets.has_started

    def check(self) -> None:
        """Raises the reason to stop preparing the request, if there is one."""
        if self.is_cancelled():
            raise Cancelled("The client went away.")
        if time.monotonic() >= self.deadline:
            raise DeadlineExceeded("The request's time ran out before it was prepared.")

    def cancel(self) -> None:
        """Ends the request for its client, who has left."""
        self.fail(Cancelled("The client went away."))

    def fail(self, error: GlmServeError) -> None:
        """Ends the request, unless it has ended or has a slot, where the engine ends it."""
        with self._lock:
            if self.is_over:
                return
            self._has_ended = True
            acts, self._at_end = self._at_end, []
        self.tickets.leave_queue()
        for act in acts:
            act()
        if not isinstance(error, Overloaded):  # counted apart
            self._meter.add(metrics.FAILED)
        self._emit(Failed(error))

    def at_end(self, act: Callable[[], None]) -> None:
        """Runs `act` when the request fails, or now if it has."""
        with self._lock:
            if not self._has_ended:
                self._at_end.append(act)
                return
        act()


class Departures:
    """One thread that looks, five times a second, who of those without a slot has left; `close` fails the rest."""

    def __init__(self, show: Callable[[], None] = lambda: None) -> None:
        """`show` is called after each look."""
        self._show = show
        self._changed = threading.Condition()
        self._waiting: set[Preparation] = set()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="departures", daemon=True)
        self._thread.start()

    def watch(self, preparation: Preparation) -> None:
        with self._changed:
            self._waiting.add(preparation)
            self._changed.notify()

    def close(self, error: GlmServeError) -> None:
        """Ends the thread, and every request that still waits."""
        with self._changed:
            self._is_closed.set()
            self._changed.notify()
        self._thread.join()
        for preparation in list(self._waiting):
            preparation.fail(error)

    def _run(self) -> None:
        while not self._is_closed.wait(_LOOK_EVERY_S):
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed.is_set())
                waiting = list(self._waiting)
            for preparation in waiting:
                self._look_at(preparation)
            self._show()

    def _look_at(self, preparation: Preparation) -> None:
        try:
            if not preparation.is_over:
                preparation.check()
        except GlmServeError as error:
            preparation.fail(error)
        except Exception:  # this thread's outer edge: one request must not leave the others unwatched
            _log.exception("a waiting request could not be looked at")
        if preparation.is_over:
            with self._changed:
                self._waiting.discard(preparation)
