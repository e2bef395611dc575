"""Which Triton a request goes to: of several, the one with the least to do that is not known to be down."""

from __future__ import annotations

import ipaddress
import itertools
import random
import socket
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.triton.backend import Backend
from glmserve.errors import BackendDown

_ASK_EVERY_S = 0.25
_LOOK_UP_EVERY = 8
"""Rounds of asking."""
_MOST_ASKED = 3  # replicas asked whether they are ready: the answer must not take longer with more of them
_JOIN_S = 5.0


@dataclass(eq=False)
class Replica:
    """One Triton as this process sees it: answers under way, and whether its last one was refused."""

    url: str
    backend: Backend
    running: int = 0
    taken: int = 0
    is_down: bool = False
    is_gone: bool = False


class LoadBalancer:
    """A pool of Tritons, each on a channel of its own; shared between threads.

    One that was down gets nothing until it says that its models are loaded, unless all are down: `start` begins the
    thread that asks. A name stands for every address it has, and is looked up again and again as replicas come and go.
    """

    def __init__(
        self,
        urls: str,
        connect: Callable[[str], Backend],
        look_up: Callable[[str], list[str]] | None = None,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        """`urls` are scheme://host:port with commas in between; `connect` opens the backend of one address.

        `shuffle` puts addresses in order: were it the same in every process, all would begin with the same replicas.
        """
        self._urls = urls.split(",")
        self._connect = connect
        self._look_up = look_up or addresses_of
        self._shuffle = shuffle
        self._lock = threading.Lock()
        self._turns = itertools.count(1)
        self._replicas: dict[str, Replica] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="replicas", daemon=True)
        self.look_up()

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def choose(self) -> Generator[Backend]:
        """One replica for one answer; after a BackendDown the next choice is another one."""
        replica = self.take()
        try:
            yield replica.backend
        except BackendDown:
            replica.is_down = True
            raise
        finally:
            self.give_back(replica)

    def models_ready(self) -> bool:
        with self._lock:
            likely = sorted(self._replicas.values(), key=self._reluctance)[:_MOST_ASKED]
        return any(replica.backend.models_ready() for replica in likely)

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for replica in self._replicas.values():
            replica.backend.close()

    def look_up(self) -> None:
        """Looks every name up; addresses that are gone get nothing new, and are let go when their last answer ends.

        A name that cannot be looked up just now keeps the addresses it had.
        """
        found: list[str] = []
        for url in self._urls:
            try:
                found += self._look_up(url)
            except OSError:
                return
        self._shuffle(found)
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

    def ask(self) -> None:
        """Asks those that were down whether they are ready again; each answers within seconds."""
        with self._lock:
            down = [replica for replica in self._replicas.values() if replica.is_down]
        for replica in down:
            replica.is_down = not replica.backend.models_ready()

    def take(self) -> Replica:
        """The next replica, for one answer; raises BackendDown when there is none at all."""
        with self._lock:
            if not self._replicas:
                raise BackendDown
            replica = min(self._replicas.values(), key=self._reluctance)
            replica.running += 1
            replica.taken = next(self._turns)
            return replica

    def give_back(self, replica: Replica) -> None:
        """Its answer has ended."""
        with self._lock:
            replica.running -= 1
            is_over = replica.is_gone and replica.running == 0
        if is_over:
            _close_all([replica])

    def _reluctance(self, replica: Replica) -> tuple[bool, int, int]:
        """Those that are down last, the others by what they have to do, and then in turn."""
        return replica.is_down, replica.running, replica.taken

    def _keep_asking(self) -> None:
        for number in itertools.count(1):
            if self._closing.wait(_ASK_EVERY_S):
                return
            self.ask()
            if number % _LOOK_UP_EVERY == 0:
                self.look_up()


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
