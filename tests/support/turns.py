"""Turns between the processes of one run: most tests run beside others, and one that measures runs alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, is_alone: bool) -> Iterator[None]:
    """Waits for this test's turn. Whoever waits to be alone holds the gate, so that no other test starts before it."""
    with ExitStack() as gate:
        gate.enter_context(_locked(folder / "gate", fcntl.LOCK_EX))
        with _locked(folder / "running", fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH):
            gate.close()
            yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(file, how)
        yield
    finally:
        os.close(file)
