"""When Triton last sent a part of an answer, to this worker or to another one of the same gateway."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

_FILE = "last-heard"
_TELL_EVERY_S = 0.5


class LastHeard:
    """Told of each part that comes; workers tell one another by the time of a file in the folder of their metrics."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder there is one worker only."""
        self._file = folder / _FILE if folder is not None else None
        self._at_s = self._told_at_s = float("-inf")

    def note(self) -> None:
        self._at_s = time.monotonic()
        if self._file is not None and self._at_s - self._told_at_s >= _TELL_EVERY_S:
            self._told_at_s = self._at_s
            with suppress(OSError):
                self._file.touch()

    @property
    def at_s(self) -> float:
        """By time.monotonic; another worker's part may have come up to half a second later than this says."""
        if self._file is None:
            return self._at_s
        try:
            age_s = max(0.0, time.time() - self._file.stat().st_mtime)
        except OSError:
            return self._at_s
        return max(self._at_s, time.monotonic() - age_s)
