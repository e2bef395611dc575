"""Keeps one Triton running: notices a dead, frozen or broken part within seconds, and starts the server again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from glmserve.system.stopped import is_stopped
from launcher.supervision.restart_policy import NoRestart, RestartPolicy
from launcher.supervision.vital_signs import (
    FROZEN_AFTER_S,
    STOPPED_FOR_S,
    Frozen,
    Process,
    PulseReader,
    cpu_s,
    ending,
    is_running,
    stubs_of,
)
from launcher.triton_server import TritonFailed, TritonServer

LOOK_EVERY_S = 0.1
STEP_TIMEOUT_S = 60.0
"""A step takes a second or two, and longer only where it keeps a slow processor busy."""
LONGEST_STEP_S = 600.0
"""A step on a processor that is busy with it: 256 tokens of the full-size model take a minute on two slow cores."""
_BUSY_SHARE = 0.25
_TURNED_WITHIN_S = 2.0
_DEVICE = "GLM_ENGINE_DEVICE"
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
        computes_on_cpu: bool | None = None,
        name: str = "Triton",
    ) -> None:
        """`load_timeout_setting` names the setting that chose `load_timeout_s`. `step_timeout_s` is the longest that
        one step of the engine may take before it counts as hung; where the engine computes on the CPU, as its own
        setting says unless `computes_on_cpu` does, a step that uses the CPU may take ten minutes."""
        self.name = name
        self._make, self._tell, self._clock = make, tell, clock
        self._load_timeout_s, self._load_timeout_setting = load_timeout_s, load_timeout_setting
        self._step_timeout_s = step_timeout_s
        self._excuses_busy = os.environ.get(_DEVICE) != "cuda" if computes_on_cpu is None else computes_on_cpu
        self._cpu_s_at_turn = 0.0
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
            self._tell(f"{self.name} is ready after {now - self._began_at:.1f} s.")

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
        if self._frozen.longest_s(stopped, now) >= STOPPED_FOR_S:
            return f"a process has stood still for {STOPPED_FOR_S:g} s"
        self._frozen.tell_due_to_go_on(stopped, now, "Triton's", self._tell)
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
        if pulse.loop_age_s < _TURNED_WITHIN_S:
            self._cpu_s_at_turn = cpu_s(self._stubs)
        if pulse.loop_age_s >= self._step_timeout_s and not self._computes(pulse.loop_age_s):
            return f"a step of the engine has taken {pulse.loop_age_s:.0f} s"
        return None

    def _computes(self, for_s: float) -> bool:
        """Whether a step that has taken so long keeps the processor busy: it is slow then, and does not hang. (A thread
        that waits for a GPU keeps one busy, too.)"""
        used_s = cpu_s(self._stubs) - self._cpu_s_at_turn
        return self._excuses_busy and for_s < LONGEST_STEP_S and used_s > _BUSY_SHARE * for_s

    def _replace(self, fault: str) -> None:
        tail, has_served = self.server.log_tail(), self.is_ready
        self._end(_AT_ONCE_S)
        try:
            wait_s = self._policy.restart_in_s(self.name, fault, has_served, not self._was_ready, self._tell)
        except NoRestart as error:
            raise TritonFailed(f"{error}\n{tail}") from None
        self._restart_at = self._clock() + wait_s

    def _end(self, patience_s: float | None = None) -> None:
        self.is_ready = False
        if self._server is not None:
            self._server.stop(patience_s)
        if self._pulse is not None:
            self._pulse.close()  # at last: a question that a frozen server left open has ended with it
            self._pulse = None
