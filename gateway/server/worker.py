"""gunicorn's worker of threads: less to do for each request, a bound to each, and no listening once told to end."""

from __future__ import annotations

import socket
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from gateway.timeouts import Watchdog, hang_up

_NOTIFY_EVERY_S = 1.0


class PromptWorker(ThreadWorker):  # type: ignore[misc]
    """Every system call gives Python's lock to another thread and waits for it again, so each one saved is two.

    Who made it sets the two bounds: seconds for a request's head to arrive, and then for all the rest of it, its answer
    read. A client that sends or reads too slowly is hung up on; it would keep its thread and its place for good.
    """

    head_timeout_s: float
    rest_timeout_s: float
    _notified_s = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watchdog = Watchdog()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called on the worker's main thread, and once more when its end has begun.

        Without closing, connections that nobody will ever serve pile up in the kernel until the last answer has ended.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def enqueue_req(self, conn: Any) -> None:
        """A connection whose request has come by now needs no selector of its own to wait for it."""
        if not conn.initialized and not conn.data_ready:
            conn.data_ready = _has_data(conn.sock)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Runs on a request's thread, which also closes the connection.

        The main thread would wait up to two seconds for a client that does not close its side, and accept nobody.
        """
        with self.watchdog.watch(lambda: hang_up(conn.sock), self.head_timeout_s) as conn.pulse:
            is_kept = super().handle(conn)
        if not is_kept:
            conn.close(graceful=True)
            conn.close = _already_closed
        return is_kept

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Runs when a request's head has been read."""
        conn.pulse.beat(self.rest_timeout_s)
        return super().handle_request(req, conn)

    def notify(self) -> None:
        """Tells the master that this worker lives: once a second, and not for every event."""
        now_s = time.monotonic()
        if now_s - self._notified_s >= _NOTIFY_EVERY_S:
            self._notified_s = now_s
            super().notify()


def _already_closed(graceful: bool = False) -> None:
    """What is left for the main thread to close."""


def _has_data(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
