"""Several Tritons, one for each device, kept running side by side: the failure of one leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from launcher.supervision.triton_supervisor import TritonSupervisor
from launcher.triton_server import TritonFailed, TritonServer


class TritonGroup:
    """Owns all Tritons from `start` to `stop`; one thread calls everything, `look` several times a second.

    Until all were ready once, one that fails ends the start. Later one that fails again and again is given up, and the
    others serve on; the last one's failure is the group's.
    """

    def __init__(self, tritons: Sequence[TritonSupervisor], tell: Callable[[str], None]) -> None:
        self._tritons, self._tell = list(tritons), tell
        self._has_served = False

    @property
    def is_ready(self) -> bool:
        """Whether every one that was not given up is."""
        return all(triton.is_ready for triton in self._tritons)

    @property
    def servers(self) -> list[TritonServer]:
        """Those that run now."""
        return [triton.server for triton in self._tritons]

    def start(self) -> None:
        """Starts them all; raises TritonFailed when one cannot be started."""
        for triton in self._tritons:
            triton.start()

    def look(self) -> None:
        """Takes one look at each. Raises TritonFailed when none is left to serve, or one fails at the first start."""
        for triton in list(self._tritons):
            try:
                triton.look()
            except TritonFailed as error:
                if not self._has_served or len(self._tritons) == 1:
                    raise
                self._tritons.remove(triton)
                self._tell(f"{error}\n{triton.name} is given up; the others serve on.")
        self._has_served = self._has_served or self.is_ready

    def stop(self) -> None:
        """Ends them all; harmless when none runs."""
        for triton in self._tritons:
            triton.stop()
