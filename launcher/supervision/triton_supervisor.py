"""Keeps one Triton running: notices a dead, frozen or broken part within seconds, and starts the server again."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.supervision.restart_policy import RestartPolicy
from launcher.supervision.vital_signs import (
    FROZEN_AFTER_S,
    Frozen,
    Process,
    PulseReader,
    ending,
    is_running,
    is_stopped,
    stubs_of,
)
from launcher.triton_server import TritonFailed, TritonServer

LOOK_EVERY_S = 0.1
STEP_TIMEOUT_S = 60.0
"""A step of a chunk of a prompt takes a second or two on the slowest machine that was measured."""
_AT_ONCE_S = 0.0
"""A server of which a part died would wait its whole exit timeout for it."""
_OVERSLEPT_S = 3.0
"""After a gap this long between two looks it was we who stood still: nobody else is blamed for it."""


class TritonSupervisor:
    """Owns a tritonserver from `start` to `stop`; one thread calls everything.

    `look` is to be called several times a second. Each Triton is a new one of `make`, on the same ports.
    """

    def __init__(
        self,
        make: Callable[[], TritonServer],
        tell: Callable[[str], None],
        load_timeout_s: float,
        load_timeout_setting: str,
        step_timeout_s: float = STEP_TIMEOUT_S,
        policy: RestartPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`load_timeout_setting` names the setting that chose `load_timeout_s`. `step_timeout_s` is the longest that
        one step of the engine may take before it counts as hung."""
        self._make, self._tell, self._clock = make, tell, clock
        self._load_timeout_s, self._load_timeout_setting = load_timeout_s, load_timeout_setting
        self._step_timeout_s = step_timeout_s
        self._policy = policy or RestartPolicy(clock)
        self._server: TritonServer | None = None
        self._pulse: PulseReader | None = None
        self._stubs: set[Process] = set()
        self._frozen = Frozen()
        self._began_at = 0.0
        self._looked_at = clock()
        self._trusts_pulse_from = 0.0
        self._restart_at: float | None = None
        self._was_ready = False
        self.is_ready = False

    @property
    def server(self) -> TritonServer:
        """The one that runs now."""
        if self._server is None:
            raise RuntimeError("no server was started")
        return self._server

    def start(self) -> None:
        """Starts the first server; raises TritonFailed when there is none to start."""
        self._server = self._make()
        self._server.start()
        self._pulse = PulseReader(self._server.host, self._server.metrics_port)
        self._stubs, self._frozen = set(), Frozen()
        self._began_at, self._restart_at, self.is_ready = self._clock(), None, False

    def look(self) -> None:
        """Takes one look, and does what is due. Raises TritonFailed for a first start that failed, and for a server
        that fails again and again."""
        now = self._clock()
        if now - self._looked_at > _OVERSLEPT_S:
            self._frozen, self._trusts_pulse_from = Frozen(), now + FROZEN_AFTER_S
        self._looked_at = now
        if self._restart_at is not None:
            if now >= self._restart_at:
                self.start()
            return
        fault = self._fault(now)
        if fault is not None:
            self._replace(fault)
        elif not self.is_ready and self.server.is_ready():
            self.is_ready = self._was_ready = True
            self._trusts_pulse_from = now + FROZEN_AFTER_S  # the port of the metrics opens last
            self._tell(f"Triton is ready after {now - self._began_at:.1f} s.")

    def stop(self) -> None:
        """Ends the server in its own time; harmless when none runs."""
        self._end()

    def _fault(self, now: float) -> str | None:
        """What is wrong with the server, in words; None when nothing is."""
        server = self.server
        code = server.exit_code()
        if code is not None:
            return f"tritonserver has ended ({ending(code)})"
        if server.pid is None:
            return None
        alive = stubs_of(server.pid)
        self._stubs |= alive
        if any(not is_running(stub) for stub in self._stubs):
            return "the process of a model has died"
        stopped = {pid for pid in (server.pid, *(stub.pid for stub in alive)) if is_stopped(pid)}
        if self._frozen.longest_s(stopped, now) >= FROZEN_AFTER_S:
            return f"a process has stood still for {FROZEN_AFTER_S:g} s"
        if not self.is_ready:
            late = now - self._began_at > self._load_timeout_s
            return (
                f"it was not ready within {self._load_timeout_s:g} s ({self._load_timeout_setting})" if late else None
            )
        return self._pulse_fault() if now >= self._trusts_pulse_from else None

    def _pulse_fault(self) -> str | None:
        if self._pulse is None:
            return None
        pulse = self._pulse.last()
        if self._pulse.silent_s() >= FROZEN_AFTER_S:
            return f"tritonserver has not answered for {FROZEN_AFTER_S:g} s"
        if pulse is None:
            return None
        if not pulse.is_healthy:
            return "the engine calls itself broken"
        if pulse.alive_age_s >= FROZEN_AFTER_S:
            return f"the engine's process has shown no life for {pulse.alive_age_s:.0f} s"
        if pulse.loop_age_s >= self._step_timeout_s:
            return f"a step of the engine has taken {pulse.loop_age_s:.0f} s"
        return None

    def _replace(self, fault: str) -> None:
        tail, has_served = self.server.log_tail(), self.is_ready
        self._end(_AT_ONCE_S)
        if not self._was_ready:
            raise TritonFailed(f"Triton failed to start: {fault}.\n{tail}")
        wait_s = self._policy.failed(has_served)
        if wait_s is None:
            raise TritonFailed(f"Triton {self._policy.too_often}; the last time, {fault}. Giving up.\n{tail}")
        self._tell(f"Triton failed: {fault}. Starting it again{f' in {wait_s:g} s' if wait_s else ''} ...")
        self._restart_at = self._clock() + wait_s

    def _end(self, patience_s: float | None = None) -> None:
        self.is_ready = False
        if self._server is not None:
            self._server.stop(patience_s)
        if self._pulse is not None:
            self._pulse.close()  # at last: a question that a frozen server left open has ended with it
            self._pulse = None
