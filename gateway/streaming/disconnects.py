"""Notices clients that disconnect while nothing is written to them, so that their answers can be cancelled."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_GONE = select.EPOLLRDHUP | select.EPOLLONESHOT
_JOIN_S = 2.0


@dataclass(eq=False)
class _Watched:
    """One client, and what to call when it disconnects."""

    client: socket.socket
    when_gone: Callable[[], object]
    has_left: bool = False


class DisconnectWatcher:
    """One thread that watches the sockets of all waiting clients; the first client starts it, and `close` ends it.

    A client that has closed its sending side counts as disconnected: browsers and HTTP libraries do so only at the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched] = {}
        self._sockets: select.epoll | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    @contextmanager
    def watch(self, client: socket.socket | None, when_gone: Callable[[], object]) -> Generator[None]:
        """Runs `when_gone` on the watching thread when the client disconnects; without a socket it does nothing."""
        if client is None or (descriptor := client.fileno()) < 0:
            yield
            return
        watched = _Watched(client, when_gone)
        with self._lock:
            self._watched[descriptor] = watched
            sockets = self._started()
            sockets.register(descriptor, _GONE)
        try:
            yield
        finally:
            with self._lock:
                if self._watched.get(descriptor) is watched:
                    del self._watched[descriptor]
                    with suppress(OSError, ValueError):  # closed already
                        sockets.unregister(descriptor)

    def close(self) -> None:
        """Ends the thread; clients that are still watched are no longer noticed."""
        self._is_closed.set()
        if self._thread is not None and self._sockets is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join(_JOIN_S)
            self._sockets.close()
            os.close(self._wake)
            self._thread = None

    def _started(self) -> select.epoll:
        if self._sockets is None:
            self._sockets, self._wake = select.epoll(), os.eventfd(0)
            self._sockets.register(self._wake, select.EPOLLIN)
            self._thread = threading.Thread(target=self._run, args=(self._sockets,), name="clients", daemon=True)
            self._thread.start()
        return self._sockets

    def _run(self, sockets: select.epoll) -> None:
        while not self._is_closed.is_set():
            for descriptor, _ in sockets.poll():
                self._check(descriptor)

    def _check(self, descriptor: int) -> None:
        """Handles a client that may have left; by now the descriptor may belong to a later client."""
        with self._lock:
            watched = self._watched.get(descriptor)
            if watched is None or watched.has_left or not _has_left(watched.client):
                return
            watched.has_left = True
        watched.when_gone()


def _has_left(client: socket.socket) -> bool:
    """Whether the client has closed its sending side; reads nothing of what it sent."""
    look = select.poll()
    try:
        look.register(client, select.POLLRDHUP)
    except ValueError:  # closed on our side
        return False
    return any(state != select.POLLNVAL for _, state in look.poll(0))
