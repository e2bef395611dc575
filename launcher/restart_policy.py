"""When to start a part again after it died, and when to give up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class RestartPolicy:
    """The first restart comes at once, each further one after twice the wait of the one before.

    More than `most` failures within `window_s` seconds are too many. A failure leaves the window after that time, and
    the wait shrinks with it.
    """

    clock: Callable[[], float]
    most: int = 5
    window_s: float = 600.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    _failures: deque[float] = field(default_factory=deque)

    @property
    def too_often(self) -> str:
        """What has happened when `failed` says to give up."""
        return f"failed {self.most + 1} times within {self.window_s / 60:g} minutes"

    def failed(self) -> float | None:
        """Notes a failure; seconds to wait before the restart, or None to give up."""
        now = self.clock()
        while self._failures and now - self._failures[0] > self.window_s:
            self._failures.popleft()
        self._failures.append(now)
        count = len(self._failures)
        if count > self.most:
            return None
        return 0.0 if count == 1 else min(self.longest_wait_s, self.first_wait_s * 2 ** (count - 2))
