"""Turns between the processes of one run: most tests run beside others, and those that measure run alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


class Turns:
    """The turns of one process; `folder` is that of the run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._gate, self._running = folder / "gate", folder / "running"
        self._kept: ExitStack | None = None

    @contextmanager
    def turn(self, is_alone: bool, keeps: bool = False) -> Iterator[None]:
        """Waits for this test's turn. Whoever waits to be alone holds the gate, so that no other test starts before it.

        A turn alone is kept for the next test where that is to be alone too: else all others would start a test in
        between, whose end must be waited for.
        """
        held, self._kept = self._kept or self._taken(is_alone), None
        try:
            yield
        finally:
            if is_alone and keeps:
                self._kept = held
            else:
                held.close()

    def _taken(self, is_alone: bool) -> ExitStack:
        held = ExitStack()
        with _locked(self._gate, fcntl.LOCK_EX):
            held.enter_context(_locked(self._running, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH))
        return held


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(file, how)
        yield
    finally:
        os.close(file)
