"""gunicorn's threaded worker with fewer system calls per request, two timeouts, and a listener that closes at once."""

from __future__ import annotations

import errno
import resource
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from gateway.timeouts import Watchdog, hang_up

_NOTIFY_EVERY_S = 1.0
_SWITCH_S = 0.001
_LOAD_TIMEOUT_S = 120.0
_RESERVED_FILES = 32  # for listeners, logs and the channels to Triton
_LEAST_CONNECTIONS = 8
_PIECE = 65_536
_BODY = b'{"error":"The service is busy; please try again.","success":false}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class GatewayWorker(ThreadWorker):  # type: ignore[misc]
    """Every system call gives Python's lock to another thread and waits to get it back, so each one saved counts twice.

    post_fork sets both timeouts: seconds until a request's head has arrived, and from then until its client has read
    the answer. A client that sends or reads too slowly is disconnected; it would keep its thread and its slot for good.
    """

    head_timeout_s: float
    rest_timeout_s: float
    _notified_s = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watchdog = Watchdog()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        is_endless = limit == resource.RLIM_INFINITY
        self._most_connections = sys.maxsize if is_endless else max(_LEAST_CONNECTIONS, limit - _RESERVED_FILES)

    def init_process(self) -> None:
        """Threads that compute give Python's lock away five times as often as they would of their own accord."""
        sys.setswitchinterval(_SWITCH_S)
        super().init_process()

    def load_wsgi(self) -> None:
        """Loads the application, and tells the master meanwhile that this worker is alive: on a slow machine that takes
        longer than a worker may be silent."""
        loaded = threading.Event()
        threading.Thread(target=self._notify_until, args=(loaded,), name="loading", daemon=True).start()
        try:
            super().load_wsgi()
        finally:
            loaded.set()

    def _notify_until(self, loaded: threading.Event) -> None:
        give_up_s = time.monotonic() + _LOAD_TIMEOUT_S
        while not loaded.wait(_NOTIFY_EVERY_S) and time.monotonic() < give_up_s:
            self.tmp.notify()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Closes the listening sockets once the worker has been told to end; called on its main thread.

        gunicorn keeps them open until the last answer has ended, and the kernel accepts connections nobody will serve.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def accept(self, listener: Any) -> None:
        """Refuses a connection for which there may be no file descriptor left; gunicorn's worker would end instead."""
        try:
            if self.nr_conns < self._most_connections:
                super().accept(listener)
            else:
                _refuse(listener.accept()[0])
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ECONNABORTED):
                raise

    def enqueue_req(self, conn: Any) -> None:
        """Serves a connection at once when its request has arrived already, without a selector to wait for it."""
        if not conn.initialized and not conn.data_ready:
            conn.data_ready = _has_data(conn.sock)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Runs on a request's thread, and closes the connection there.

        gunicorn closes it on the main thread, which waits up to two seconds for the client and accepts nobody.
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
        """Tells the master that this worker is alive: once a second, not for every event."""
        now_s = time.monotonic()
        if now_s - self._notified_s >= _NOTIFY_EVERY_S:
            self._notified_s = now_s
            super().notify()


def _refuse(connection: socket.socket) -> None:
    """Answers a connection without reading its request, and never waits for its client."""
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(_REFUSAL)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(_PIECE)  # what is unread when it is closed would cut the answer off


def _already_closed(graceful: bool = False) -> None:
    """Replaces `close` for gunicorn's main thread: nothing is left to close."""


def _has_data(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
