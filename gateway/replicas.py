"""Which Triton a request goes to: of several, the one with the least to do that has not just failed."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

from gateway.backend import Backend, Chunk, GenerateRequest
from glmserve.errors import BackendDown

REST_S = 1.0
"""How long a Triton that was down is passed over, unless all were."""
_LOOK_UP_EVERY_S = 2.0
_MOST_ASKED = 3  # replicas asked whether they are ready: the answer must not take longer with more of them
_JOIN_S = 5.0


@dataclass(eq=False)
class Replica:
    """One Triton as this process sees it: answers under way, and how it was last."""

    url: str
    backend: Backend
    running: int = 0
    taken: int = 0
    rests_until_s: float = float("-inf")
    is_gone: bool = False


class Replicas:
    """The Backend of several Tritons, each on a channel of its own; shared between threads.

    A name stands for every address it has: it is looked up again and again, so that replicas come and go.
    """

    def __init__(
        self,
        urls: str,
        connect: Callable[[str], Backend],
        look_up: Callable[[str], list[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`urls` are scheme://host:port with commas in between; `connect` opens the backend of one address."""
        self._urls = urls.split(",")
        self._connect = connect
        self._look_up = look_up or addresses_of
        self._clock = clock
        self._lock = threading.Lock()
        self._turns = itertools.count(1)
        self._replicas: dict[str, Replica] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.refresh()
        if any(not _is_address(url) for url in self._urls):
            self._thread = threading.Thread(target=self._keep_looking, name="replicas", daemon=True)
            self._thread.start()

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer of one replica; a BackendDown makes that replica rest, so that another try goes elsewhere."""
        replica = self._take()
        try:
            with closing(replica.backend.generate(request)) as chunks:
                yield from chunks
        except BackendDown:
            replica.rests_until_s = self._clock() + REST_S
            raise
        finally:
            self._give_back(replica)

    def models_ready(self) -> bool:
        with self._lock:
            likely = sorted(self._replicas.values(), key=self._reluctance)[:_MOST_ASKED]
        return any(replica.backend.models_ready() for replica in likely)

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        for replica in self._replicas.values():
            replica.backend.close()

    def refresh(self) -> None:
        """Looks every name up; addresses that are gone get nothing new, and are let go when their last answer ends.

        A name that cannot be looked up just now keeps the addresses it had.
        """
        found: list[str] = []
        for url in self._urls:
            try:
                found += self._look_up(url)
            except OSError:
                return
        with self._lock:
            gone = [replica for url, replica in self._replicas.items() if url not in found]
            for replica in gone:
                replica.is_gone = True
                del self._replicas[replica.url]
            for url in found:
                if url not in self._replicas:
                    self._replicas[url] = Replica(url, self._connect(url))
            idle = [replica for replica in gone if replica.running == 0]
        _close_all(idle)

    def _take(self) -> Replica:
        with self._lock:
            if not self._replicas:
                raise BackendDown
            replica = min(self._replicas.values(), key=self._reluctance)
            replica.running += 1
            replica.taken = next(self._turns)
            return replica

    def _give_back(self, replica: Replica) -> None:
        with self._lock:
            replica.running -= 1
            is_over = replica.is_gone and replica.running == 0
        if is_over:
            _close_all([replica])

    def _reluctance(self, replica: Replica) -> tuple[bool, int, int]:
        """Resting, then busy, then the one whose turn was last."""
        return replica.rests_until_s > self._clock(), replica.running, replica.taken

    def _keep_looking(self) -> None:
        while not self._closing.wait(_LOOK_UP_EVERY_S):
            self.refresh()


def addresses_of(url: str) -> list[str]:
    """The same URL with each IPv4 address of its host; raises OSError when the host has none now."""
    if _is_address(url):
        return [url]
    scheme, host, port = _parts(url)
    found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    return sorted({f"{scheme}://{where[0]}:{port}" for *_, where in found})


def _is_address(url: str) -> bool:
    try:
        ipaddress.ip_address(_parts(url)[1].strip("[]"))
    except ValueError:
        return False
    return True


def _parts(url: str) -> tuple[str, str, str]:
    scheme, _, place = url.partition("://")
    host, _, port = place.rpartition(":")
    return scheme, host, port


def _close_all(replicas: Iterable[Replica]) -> None:
    for replica in replicas:
        replica.backend.close()
