"""When to start a part again after it died, and when to give up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


class NoRestart(Exception):
    """A part is not started again; the message says what failed."""


@dataclass
class RestartPolicy:
    """A part that had served is started again at once. If it fails again before it serves, each further restart comes
    after twice the wait of the one before.

    More than `most` failures in a row without serving in between, or more than `most_in_all`, within `window_s` seconds
    are too many. A failure leaves the window after that time, and the wait shrinks with it.
    """

    clock: Callable[[], float]
    most: int = 5
    most_in_all: int = 40
    window_s: float = 600.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    _in_a_row: deque[float] = field(default_factory=deque)
    _in_all: deque[float] = field(default_factory=deque)

    def failed(self, has_served: bool = False) -> float | None:
        """Notes a failure, and whether the part had served before it; seconds to wait before the restart, or None to
        give up."""
        now = self.clock()
        if has_served:
            self._in_a_row.clear()
        for failures in (self._in_a_row, self._in_all):
            while failures and now - failures[0] > self.window_s:
                failures.popleft()
            failures.append(now)
        count = len(self._in_a_row)
        if count > self.most or len(self._in_all) > self.most_in_all:
            return None
        return 0.0 if count == 1 else min(self.longest_wait_s, self.first_wait_s * 2 ** (count - 2))

    def restart_in_s(
        self, part: str, fault: str, has_served: bool, is_first_start: bool, tell: Callable[[str], None]
    ) -> float:
        """Seconds until the restart of a part that failed in this way, told in words; raises NoRestart for a first
        start, and when there were too many failures."""
        if is_first_start:
            raise NoRestart(f"{part} failed to start: {fault}.")
        wait_s = self.failed(has_served)
        if wait_s is None:
            raise NoRestart(f"{part} {self.too_often}; the last time, {fault}. Giving up.")
        tell(f"{part} failed: {fault}. Starting it again{f' in {wait_s:g} s' if wait_s else ''} ...")
        return wait_s

    @property
    def too_often(self) -> str:
        """What has happened when `failed` says to give up."""
        return f"failed {len(self._in_all)} times within {self.window_s / 60:g} minutes"
