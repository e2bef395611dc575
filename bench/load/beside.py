"""What this machine itself adds while something is measured: a beat's unsteadiness, and the way to a bare socket."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ECHO_EVERY_S = 0.05
_ECHO = b"x" * 256
_TIMEOUT_S = 60.0


@contextmanager
def at_a_beat(look: Callable[[], float], every_s: float) -> Iterator[list[float]]:
    """What `look` returns, which a thread calls at this beat until the block ends."""
    over, found = threading.Event(), list[float]()

    def run() -> None:
        due = time.perf_counter()
        while not over.is_set():
            found.append(look())
            due += every_s
            time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(_TIMEOUT_S)


@contextmanager
def bare_echo() -> Iterator[list[float]]:
    """Seconds that a few bytes take to a bare socket and back, each on a new connection, until the block ends."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def echo_s() -> float:
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", server.server_address[1]), _TIMEOUT_S) as client:
            client.sendall(_ECHO)
            client.recv(len(_ECHO))
        return time.perf_counter() - began

    with server:
        try:
            with at_a_beat(echo_s, _ECHO_EVERY_S) as taken:
                yield taken
        finally:
            server.shutdown()


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(len(_ECHO)))
