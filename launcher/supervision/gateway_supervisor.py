"""Keeps one gateway running: notices that its master died or stands still, and starts it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from glmserve.system.stopped import is_stopped
from launcher.gateway_server import GatewayFailed, GatewayServer
from launcher.supervision.restart_policy import NoRestart, RestartPolicy
from launcher.supervision.vital_signs import Frozen, children_of, ending

_FROZEN_AFTER_S = 5.0
_AT_ONCE_S = 0.0
_POLL_S = 0.25
_JOIN_S = 0.5


class GatewaySupervisor:
    """Owns a gateway from `start` to `stop`; one thread calls everything.

    `look` is to be called several times a second and never waits: a thread of its own asks the gateway whether it is
    ready. gunicorn itself replaces workers; one that is only stopped is told to go on before, as its master is.
    """

    def __init__(
        self,
        gateway: GatewayServer,
        tell: Callable[[str], None],
        policy: RestartPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway, self._tell, self._clock = gateway, tell, clock
        self._policy = policy or RestartPolicy(clock)
        self._probe: ReadinessProbe | None = None
        self._frozen = Frozen()
        self._restart_at: float | None = None
        self._told = ""
        self._was_ready = False
        self.is_ready = False

    @property
    def reason(self) -> str:
        """Why it is not ready, as it said last."""
        return self._probe.reason if self._probe else ""

    def start(self) -> None:
        self._gateway.start()
        self._probe = ReadinessProbe(self._gateway)
        self._frozen, self._restart_at, self.is_ready = Frozen(), None, False

    def look(self) -> None:
        """Takes one look, and does what is due. Raises GatewayFailed for a first start that failed, and for a gateway
        that fails again and again."""
        now = self._clock()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self.start()
            return
        fault = self._fault(now)
        if fault is not None:
            self._replace(fault)
        elif not self.is_ready and self._probe is not None:
            self._hear(self._probe)

    def forgive(self) -> None:
        """Forgets how long processes stood still: we did so ourselves."""
        self._frozen = Frozen()

    def stop(self) -> None:
        """Lets running requests finish; harmless when none runs."""
        self._end(None)

    def _hear(self, probe: ReadinessProbe) -> None:
        if probe.is_ready:
            self.is_ready = True
            if self._was_ready:
                self._tell("The gateway is ready again.")
            self._was_ready = True
        elif probe.reason and probe.reason != self._told:
            self._told = probe.reason
            self._tell(f"Not ready yet: {probe.reason}")

    def _fault(self, now: float) -> str | None:
        code = self._gateway.exit_code()
        if code is not None:
            return f"it has ended ({ending(code)})"
        master = self._gateway.pid
        if master is None:
            return None
        stopped = {pid for pid in (master, *children_of(master)) if is_stopped(pid)}
        self._frozen.longest_s(stopped, now)
        if master in stopped and now - self._frozen.since[master] >= _FROZEN_AFTER_S:
            return f"its master has stood still for {_FROZEN_AFTER_S:g} s"
        self._frozen.tell_due_to_go_on(stopped, now, "the gateway's", self._tell)
        return None

    def _replace(self, fault: str) -> None:
        has_served = self.is_ready
        self._end(_AT_ONCE_S)
        try:
            wait_s = self._policy.restart_in_s("The gateway", fault, has_served, not self._was_ready, self._tell)
        except NoRestart as error:
            raise GatewayFailed(str(error)) from None
        self._restart_at = self._clock() + wait_s

    def _end(self, patience_s: float | None) -> None:
        self.is_ready = False
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._gateway.stop(patience_s)


class ReadinessProbe:
    """Asks a gateway until it is ready, on a thread of its own: an answer may take as long as the canary's timeout."""

    def __init__(self, gateway: GatewayServer) -> None:
        self.is_ready = False
        self.reason = ""
        self._gateway = gateway
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Asks no more. An answer that is under way is not waited for long; nobody hears it."""
        self._closing.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closing.wait(_POLL_S):
            self.is_ready, self.reason = self._gateway.readiness(self.reason)
            if self.is_ready:
                return
