"""The moment at which an answer is given up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from glmserve.errors import DeadlineExceeded

DEADLINE_HEADER = "X-Request-Timeout"
"""Seconds that a client gives its answer, where that is less than the service's own deadline."""
LEAST_DEADLINE_S = 0.1
"""Less time than this no answer can keep to, so asking for it is a mistake and not a deadline that passed."""


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
