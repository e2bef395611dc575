"""A small TCP proxy on loopback that delays what passes, or cuts a connection after a number of bytes."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)
_POLL_S = 0.2


class Proxy:
    """Passes connections on to `target_port`, from `start` to `close`.

    `delay_s` holds every chunk back that long, in either direction, in order. `cut_after` is asked once for each
    connection how many bytes of the answer may pass; None is all of them.
    """

    def __init__(self, target_port: int, cut_after: Callable[[], int | None] = lambda: None) -> None:
        self._target, self._cut_after = target_port, cut_after
        self.delay_s = 0.0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(_POLL_S)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener:
            while not self._closing.is_set():
                with suppress(TimeoutError):
                    client, _ = self._listener.accept()
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        with client, server:
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            up = threading.Thread(target=self._pass_on, args=(client, server, None), daemon=True)
            up.start()
            is_cut = self._pass_on(server, client, self._cut_after())
            if is_cut:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):  # wakes the other thread; only after that does closing reset the connection
                client.shutdown(socket.SHUT_RD if is_cut else socket.SHUT_RDWR)
            up.join()
            with self._lock:
                self._open -= {client, server}

    def _pass_on(self, source: socket.socket, target: socket.socket, most: int | None) -> bool:
        """Until either side closes, or `most` bytes have passed; whether it was the latter."""
        passed = 0
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if most is not None and passed + len(chunk) >= most:
                    target.sendall(chunk[: most - passed])
                    return True
                target.sendall(chunk)
                passed += len(chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        return False


def at_random(seed: int, share: float, most: int) -> Callable[[], int | None]:
    """Cuts this share of the connections, after 1 to `most` bytes."""
    chance = random.Random(seed)
    return lambda: chance.randint(1, most) if chance.random() < share else None
