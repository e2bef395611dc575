"""Processes that are asked again and again: whoever takes one has it alone, and gives it back for the next."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar


class Worker(Protocol):
    """One process, as whoever asks it sees it."""

    def is_fit(self) -> bool:
        """Whether it can be asked once more."""

    def end(self) -> int:
        """Ends it in any case; its exit code."""


W = TypeVar("W", bound=Worker)


class IdleProcesses(Generic[W]):
    """Those that nobody uses now; any thread may take one. They end with this object, or when it is closed."""

    def __init__(self, start: Callable[[], W]) -> None:
        """`start` makes one when none is left."""
        self._start = start
        self._lock = threading.Lock()
        self._idle: list[W] = []
        self._finalizer = weakref.finalize(self, _end_all, self._idle)

    def take(self) -> W:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_fit():
                    return process
                process.end()
        return self._start()

    def give_back(self, process: W) -> None:
        """Keeps it for the next who asks, or ends it after `close`."""
        with self._lock:
            if self._finalizer.alive:
                self._idle.append(process)
                return
        process.end()

    def close(self) -> None:
        """Ends those that nobody uses; the others end when they are given back."""
        self._finalizer()


def has_ended(process: subprocess.Popen[Any], wait_s: float) -> bool:
    """Whether it ended by itself within that time; otherwise it has been killed. It is collected either way."""
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def import_path() -> str:
    """A PYTHONPATH by which a process finds what we do: an editable installation is found by a hook, not by a path."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([ours, *(folder for folder in sys.path if Path(folder).is_absolute())])


def _end_all(processes: list[W]) -> None:
    while processes:
        processes.pop().end()
