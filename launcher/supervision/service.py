"""Triton and the gateway together: one loop that watches both from the first moment to the last."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.gateway_server import GatewayFailed
from launcher.notify import notify, watchdog_interval_s
from launcher.probe import START_TIMEOUT_VARIABLE
from launcher.supervision.gateway_supervisor import GatewaySupervisor
from launcher.supervision.triton_group import TritonGroup
from launcher.supervision.triton_supervisor import LOOK_EVERY_S
from launcher.triton_server import TritonFailed

_OVERSLEPT_S = 3.0
_STARTING = "Starting."
_SERVING = "Serving."
_MENDING = "A part has failed and is being started again."


class ChildDied(Exception):
    """Triton or the gateway, which had served, failed and cannot be brought back."""


class Service:
    """Runs both until somebody ends it; one thread calls everything, and nothing of it waits for an answer.

    A first start that fails ends it. Later failures are mended: Triton and the gateway are restarted each on its own,
    and the gateway stays up while Triton is away. systemd, where it listens, is told the state and that we are alive.
    """

    def __init__(
        self,
        triton: TritonGroup,
        gateway: GatewaySupervisor,
        ready_timeout_s: float,
        when_ready: Callable[[], None],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`when_ready` is called once, when both answer for the first time; the gateway has `ready_timeout_s` for that
        once Triton's models are loaded."""
        self._triton, self._gateway = triton, gateway
        self._ready_timeout_s, self._when_ready, self._tell = ready_timeout_s, when_ready, tell
        self._clock = clock
        self._looked_at = clock()
        self._loaded_at: float | None = None
        self._has_served = False
        self._state = ""
        self._watchdog_s = watchdog_interval_s()
        self._petted_at = float("-inf")

    def run(self) -> None:
        """Watches until a signal's exception ends it, or raises what could not be mended: TritonFailed or GatewayFailed
        before the first answer, ChildDied after it."""
        self._say_state(_STARTING)
        while True:
            self.look()
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        now = self._clock()
        if now - self._looked_at > _OVERSLEPT_S:
            self._gateway.forgive()  # Triton's supervisor notices by itself
        self._looked_at = now
        try:
            self._triton.look()
            self._gateway.look()
        except (TritonFailed, GatewayFailed) as error:
            if self._has_served:
                raise ChildDied(str(error)) from None
            raise
        if not self._has_served:
            self._begin(now)
        else:
            self._say_state(_SERVING if self._triton.is_ready and self._gateway.is_ready else _MENDING)
        self._pet_watchdog(now)

    def _begin(self, now: float) -> None:
        if not self._triton.is_ready:
            return
        if self._loaded_at is None:
            self._loaded_at = now
            self._tell("Triton has loaded the models. The gateway asks them the canary question ...")
        if self._gateway.is_ready:
            self._has_served = True
            self._when_ready()
            notify("READY=1")
        elif now - self._loaded_at > self._ready_timeout_s:
            raise GatewayFailed(
                f"The gateway was not ready within {self._ready_timeout_s:g} s ({START_TIMEOUT_VARIABLE}). "
                f"{self._gateway.reason or 'It did not answer at all.'}"
            )

    def _say_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            notify(f"STATUS={state}")

    def _pet_watchdog(self, now: float) -> None:
        if self._watchdog_s is not None and now - self._petted_at >= self._watchdog_s:
            self._petted_at = now
            notify("WATCHDOG=1")
