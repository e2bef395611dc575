"""The moment by which an answer must be complete."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from glmserve.errors import DeadlineExceeded

DEADLINE_HEADER = "X-Request-Timeout"
"""The client's own deadline in seconds; the service's deadline bounds it."""
START_HEADER = "X-Request-Start"
"""When our own proxy first passed the request on: `t=` and seconds since 1970. What another gateway took counts."""
LEAST_DEADLINE_S = 0.1
"""The shortest deadline a client may ask for; no answer is ready sooner."""


def patience_s(sent: str | None, most_s: float) -> float:
    """How long a client waits that has `sent` DEADLINE_HEADER, and no longer than `most_s`; NaN for a wrong one."""
    try:
        wanted_s = most_s if sent is None else float(sent)
    except ValueError:
        return math.nan
    return min(wanted_s, most_s) if sent is None or wanted_s >= LEAST_DEADLINE_S else math.nan


def seconds_since(start: str) -> float:
    """The seconds since the moment that stands in START_HEADER; 0 for one that is malformed or lies ahead."""
    try:
        age_s = time.time() - float(start.removeprefix("t="))
    except ValueError:
        return 0.0
    return age_s if 0 < age_s < math.inf else 0.0


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
