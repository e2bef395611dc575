"""The moment by which an answer must be complete."""

from __future__ import annotations

import time
from dataclasses import dataclass

from glmserve.errors import DeadlineExceeded

DEADLINE_HEADER = "X-Request-Timeout"
"""The client's own deadline in seconds; the service's deadline bounds it."""
LEAST_DEADLINE_S = 0.1
"""The shortest deadline a client may ask for; no answer is ready sooner."""


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock."""

    at_s: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        return Deadline(time.monotonic() + seconds)

    def left_s(self) -> float:
        """Seconds left; raises DeadlineExceeded when there are none."""
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left
