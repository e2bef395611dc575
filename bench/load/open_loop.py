"""The open loop: requests that arrive at random moments, whether earlier ones have been answered or not."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from bench.load.closed_loop import Reply

_MOST_AT_ONCE = 512
_TIMEOUT_S = 60.0
_ECHO_EVERY_S = 0.05
_ECHO = b"x" * 256
HOST = "127.0.0.1"


def arrive(ask: Callable[[int], Reply], per_s: float, for_s: float, seed: int) -> list[Reply]:
    """What became of requests that arrive at this mean rate (Poisson); `ask` is told each one's number.

    A request begins when it arrives: if all threads are taken, its wait counts.
    """
    chance, due, found = random.Random(seed), time.monotonic(), list[Future[Reply]]()
    end = due + for_s
    with ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="arrival") as pool:
        while (due := due + chance.expovariate(per_s)) < end:
            time.sleep(max(0.0, due - time.monotonic()))
            found.append(pool.submit(_begun_at, due, ask, len(found)))
        return [future.result(_TIMEOUT_S) for future in found]


def _begun_at(due: float, ask: Callable[[int], Reply], number: int) -> Reply:
    reply = ask(number)
    reply.began = due
    return reply


@contextmanager
def bare_echo() -> Iterator[list[float]]:
    """Seconds that a few bytes take to a bare socket and back, each on a new connection, again and again until
    the block ends: what this machine itself adds to every answer."""
    server = socketserver.ThreadingTCPServer((HOST, 0), _Echo)
    server.daemon_threads = True
    stopping, taken = threading.Event(), list[float]()

    def ask() -> None:
        while not stopping.wait(_ECHO_EVERY_S):
            began = time.perf_counter()
            with socket.create_connection((HOST, server.server_address[1]), _TIMEOUT_S) as client:
                client.sendall(_ECHO)
                client.recv(len(_ECHO))
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work, daemon=True) for work in (server.serve_forever, ask)]
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        stopping.set()
        threads[1].join(_TIMEOUT_S)
        server.shutdown()
        server.server_close()


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(len(_ECHO)))
