"""The faults of a chaos run, and whoever does them: signals to our own processes, and a slow way to Triton."""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from proxy import Proxy
from service import Role, Service
from sidecars import Nginx, Redis

SLOW_S = 1.5
LONGEST_END_S = 60.0
_OF_TRITON = (Role.STUB, Role.WHOLE_STUB, Role.TRITON)
MOST_TRITON_FAULTS = 4
"""More within ten minutes, and the supervisor gives up: then we start it anew first, as a rollout would."""


@dataclass(frozen=True)
class Fault:
    """A signal to one process of a role, taken back after `lasts_s` where it is SIGSTOP; without a role, slowness.

    `breaks` says that clients' connections may break, `allowed_s` how much longer than others it may take.
    """

    name: str
    role: Role | None
    number: Signals = SIGKILL
    lasts_s: float = 0.0
    breaks: bool = False
    allowed_s: float = 0.0

    @property
    def freezes_clients(self) -> bool:
        return self.number is SIGSTOP and self.role in (Role.WORKER, Role.MASTER, Role.NGINX)


@dataclass
class Struck:
    """A fault as it happened; `until_s` is when the service answered again."""

    fault: Fault
    at_s: float
    until_s: float = float("inf")
    over: threading.Event = field(default_factory=threading.Event)


def _stops(role: Role, *seconds: float, breaks: bool = False) -> list[Fault]:
    return [Fault(f"SIGSTOP {role} {s:g} s", role, SIGSTOP, s, breaks, allowed_s=0.0) for s in seconds]


def _ends(role: Role) -> list[Fault]:
    return [Fault(f"{number.name} {role}", role, number) for number in (SIGKILL, SIGTERM)]


FAULTS: tuple[Fault, ...] = (
    *_ends(Role.STUB),
    *_ends(Role.WHOLE_STUB),
    *_ends(Role.TRITON),
    *_stops(Role.STUB, 8, 12, 60),
    *_stops(Role.WHOLE_STUB, 12),
    *_stops(Role.TRITON, 8, 12, 60),
    Fault("SIGTERM supervisor", Role.SUPERVISOR, SIGTERM, allowed_s=15.0),
    Fault("SIGKILL supervisor", Role.SUPERVISOR, SIGKILL, allowed_s=15.0),
    Fault("SIGKILL gateway worker", Role.WORKER, SIGKILL, breaks=True),
    Fault("SIGTERM gateway worker", Role.WORKER, SIGTERM),
    Fault("SIGKILL gunicorn master", Role.MASTER, SIGKILL, breaks=True),
    Fault("SIGTERM gunicorn master", Role.MASTER, SIGTERM, breaks=True, allowed_s=30.0),
    *_stops(Role.WORKER, 8, 12, 60, breaks=True),  # after 6 s gunicorn takes it for stuck and ends it
    *_stops(Role.MASTER, 12),
    Fault("SIGKILL redis", Role.REDIS, SIGKILL),
    *_stops(Role.REDIS, 8),
    Fault("SIGKILL nginx", Role.NGINX, SIGKILL, breaks=True),
    *_stops(Role.NGINX, 8),
    Fault("slow Triton 10 s", None, lasts_s=10.0, allowed_s=10.0),
)


def under_the_launcher() -> tuple[Fault, ...]:
    """The faults of a launcher, which takes the gateway along when it ends; its way to Triton is its own."""
    of_both = Role.SUPERVISOR
    return tuple(
        replace(fault, breaks=True, allowed_s=30.0) if fault.role is of_both else fault
        for fault in FAULTS
        if fault.role is not None
    )


class Injector:
    """Strikes, one fault at a time; a timer of its own takes a stop back."""

    def __init__(
        self,
        service: Service,
        to_triton: Proxy,
        redis: Redis | None,
        nginx: Nginx | None,
        chance: random.Random,
        faults: Sequence[Fault] = FAULTS,
    ) -> None:
        """`faults` are all that may be, of which one is the supervisor's end."""
        self._faults = faults
        self._service, self._to_triton, self._chance = service, to_triton, chance
        self._sidecars = {Role.REDIS: redis, Role.NGINX: nginx}
        self._on_triton = 0

    def strike(self, fault: Fault) -> Struck | None:
        """The fault, begun; None when there is no such process at the moment."""
        if fault.role in _OF_TRITON:
            self._on_triton += 1
            if self._on_triton > MOST_TRITON_FAULTS:
                self._on_triton = 0
                fault = next(other for other in self._faults if other.role is Role.SUPERVISOR)
        if fault.role is None:
            return self._slow(fault)
        pids = self._pids(fault.role)
        if not pids:
            return None
        try:
            handle = os.pidfd_open(self._chance.choice(pids))  # so that no later process of this id is ever meant
        except ProcessLookupError:
            return None
        struck = Struck(fault, time.monotonic())
        _send(handle, fault.number)
        if fault.number is SIGSTOP:
            threading.Timer(fault.lasts_s, self._take_back, (handle, struck)).start()
        else:
            threading.Thread(target=self._await_end, args=(handle, struck), daemon=True).start()
        return struck

    @staticmethod
    def is_over(struck: Struck) -> bool:
        """Whether the process runs again, or has been replaced: a supervisor may be quicker than the end of a stop."""
        return struck.over.is_set() or struck.fault.role in _OF_TRITON

    def _pids(self, role: Role) -> list[int]:
        if role in self._sidecars:
            sidecar = self._sidecars[role]
            return [sidecar.pid] if sidecar is not None and sidecar.pid is not None else []
        return self._service.pids(role)

    def _slow(self, fault: Fault) -> Struck:
        struck = Struck(fault, time.monotonic())
        self._to_triton.delay_s = SLOW_S
        threading.Timer(fault.lasts_s, self._take_back, (None, struck)).start()
        return struck

    @staticmethod
    def _await_end(handle: int, struck: Struck) -> None:
        """A process that is told to end answers for a while yet; what comes then says nothing of its recovery."""
        select.select([handle], [], [], LONGEST_END_S)
        os.close(handle)
        struck.over.set()

    def _take_back(self, handle: int | None, struck: Struck) -> None:
        if handle is None:
            self._to_triton.delay_s = 0.0
        else:
            _send(handle, SIGCONT)
            os.close(handle)
        struck.over.set()


def _send(handle: int, number: Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)
