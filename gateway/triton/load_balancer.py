"""Chooses the Triton for each request: the one with the fewest requests, of those not known to be down or full."""

from __future__ import annotations

import ipaddress
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.triton.backend import Backend
from gateway.triton.errors import lacks_places
from gateway.triton.outages import Outages
from glmserve.errors import BackendDown, GlmServeError, Overloaded

_PROBE_EVERY_S = 0.25
_LOOK_UP_EVERY = 8  # rounds of probing
_MOST_PROBED = 3  # replicas probed for readiness, so that more replicas do not make it slower
_MOST_AT_ONCE = 16
_JOIN_S = 5.0
_CONNECT_S = 0.3
_FULL_FOR_S = 0.5
"""For so long after it refused an answer for want of places, a Triton is asked only where all others are full too."""


@dataclass(eq=False)
class Replica:
    """One Triton as this process sees it: its running requests, and whether it was down at the last try."""

    url: str
    backend: Backend
    running: int = 0
    taken: int = 0
    down_since_s: float | None = None
    full_until_s: float = float("-inf")
    is_gone: bool = False

    @property
    def is_down(self) -> bool:
        return self.down_since_s is not None


class LoadBalancer:
    """A pool of Tritons, each on a channel of its own; shared between threads.

    A replica that was down gets no request until it says that its models are loaded, unless all are down. The thread
    that `start` begins probes those, and looks names up again: a name stands for all its addresses.
    """

    def __init__(
        self,
        urls: str,
        connect: Callable[[str], Backend],
        look_up: Callable[[str], list[str]] | None = None,
        shuffle: Callable[[list[str]], None] = random.shuffle,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`urls` are scheme://host:port with commas in between; `connect` opens the backend of one address.

        `shuffle` orders the addresses: with the same order in every process, all would begin with the same replica.
        """
        self._urls = urls.split(",")
        self._connect = connect
        self._look_up = look_up or addresses_of
        self._shuffle = shuffle
        self._clock = clock
        self._outages = Outages()
        self._lock = threading.Lock()
        self._turns = itertools.count(1)
        self._replicas: dict[str, Replica] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._probe_forever, name="replicas", daemon=True)
        self.look_up()

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def choose(self) -> Generator[Backend]:
        """One replica for one answer; after a BackendDown, or a refusal for want of places, the next choice is another.

        A BackendDown says when to come back, if no replica is up: by how long the last outages took (see Outages).
        """
        replica = self.take()
        try:
            yield replica.backend
        except BackendDown as error:
            error.retry_after_s = self._went_down(replica)
            raise
        except GlmServeError as error:
            if lacks_places(error):
                replica.full_until_s = self._clock() + _FULL_FOR_S
            raise
        finally:
            self.give_back(replica)

    def has_another(self) -> bool:
        """Whether a replica is not known to be down; one that has just died is down until it says it is ready."""
        with self._lock:
            return any(not replica.is_down for replica in self._replicas.values())

    def has_room(self, refusal: GlmServeError, asked: int) -> bool:
        """Whether a replica may have places for what others refused, of which so many were asked in a row. Where one
        is full now, that is who is not known to be full; where one never has so many, whoever was not asked."""
        with self._lock:
            up = [replica for replica in self._replicas.values() if not replica.is_down]
            if isinstance(refusal, Overloaded):
                return any(replica.full_until_s <= self._clock() for replica in up)
            return asked < len(up)

    def models_ready(self) -> bool:
        with self._lock:
            likely = sorted(self._replicas.values(), key=self._rank)[:_MOST_PROBED]
        pool = ThreadPoolExecutor(_MOST_PROBED, thread_name_prefix="readiness")
        try:
            probes = [pool.submit(replica.backend.models_ready) for replica in likely]
            return any(probe.result() for probe in as_completed(probes))
        finally:
            pool.shutdown(wait=False)  # one that says yes is enough; a frozen one takes its time

    def count_up(self) -> int:
        """Of how many replicas something listens on the port; a Triton that has died refuses at once. One that was down
        at the last try counts only once its models are loaded."""
        with self._lock:
            likely = [replica.url for replica in self._replicas.values() if not replica.is_down]
        return sum(map(_listens, likely))

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for replica in self._replicas.values():
            replica.backend.close()

    def look_up(self) -> None:
        """Looks up every name. An address that is gone gets no new request, and is closed when its last answer ends.

        A name that cannot be looked up now keeps its addresses.
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
        """Probes the replicas that were down; each answers within seconds."""
        with self._lock:
            down = [replica for replica in self._replicas.values() if replica.is_down]
        if down:
            with ThreadPoolExecutor(min(len(down), _MOST_AT_ONCE), thread_name_prefix="probes") as pool:
                list(pool.map(self._probe, down))

    def take(self) -> Replica:
        """The next replica, for one answer; raises BackendDown when there is no replica at all."""
        with self._lock:
            if not self._replicas:
                raise BackendDown
            replica = min(self._replicas.values(), key=self._rank)
            replica.running += 1
            replica.taken = next(self._turns)
            return replica

    def give_back(self, replica: Replica) -> None:
        """Counts the answer as ended."""
        with self._lock:
            replica.running -= 1
            is_over = replica.is_gone and replica.running == 0
        if is_over:
            _close_all([replica])

    def _went_down(self, replica: Replica) -> int | None:
        """Seconds until one of them is likely back; None while another is up."""
        with self._lock:
            now_s = self._clock()
            if replica.down_since_s is None:
                replica.down_since_s = now_s
            since = [other.down_since_s for other in self._replicas.values()]
            down_for_s = [now_s - began_s for began_s in since if began_s is not None]
            if not down_for_s or len(down_for_s) < len(since):
                return None
            return min(map(self._outages.retry_after_s, down_for_s))

    def _probe(self, replica: Replica) -> None:
        if replica.backend.models_ready():
            self._came_back(replica)

    def _came_back(self, replica: Replica) -> None:
        with self._lock:
            if replica.down_since_s is not None:
                self._outages.ended(self._clock() - replica.down_since_s)
                replica.down_since_s = None

    def _rank(self, replica: Replica) -> tuple[bool, float, int, int]:
        """The sort key: replicas that are down last, before them those that are full, who refused last behind; then by
        running requests, then the least recently used first."""
        full_until_s = replica.full_until_s if replica.full_until_s > self._clock() else float("-inf")
        return replica.is_down, full_until_s, replica.running, replica.taken

    def _probe_forever(self) -> None:
        for number in itertools.count(1):
            if self._closing.wait(_PROBE_EVERY_S):
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


def _listens(url: str) -> bool:
    """Whether the port is open; a host that is slow to say so counts as open."""
    _, host, port = _parts(url)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return True


def _close_all(replicas: Iterable[Replica]) -> None:
    for replica in replicas:
        replica.backend.close()
