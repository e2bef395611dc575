"""A child process that always ends: when it is told to, and when we die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

_KILL_WAIT_S = 5.0
_DIE_WITH_US = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and our child must not
    signal.signal(ignored, signal.SIG_DFL)
if os.getppid() == int(parent):  # else the parent died before prctl
    os.execvp(command[0], command)
"""
"""Becomes the command. It is a program of its own because no Python may run between fork and exec: a fork wakes the
fork handlers of threaded libraries, gRPC above all, and now and then the new process dies of it."""


def ending_with_us(command: list[str]) -> list[str]:
    """The command line of a process that becomes `command`, and that the kernel ends with SIGTERM when we die.

    Linux ends it when the *thread* that started it dies: start it from one that stays.
    """
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_US, str(os.getpid()), *command]


class Child:
    """One process in a session of its own, so that Ctrl-C reaches only us; the kernel ends it when the thread that
    started it dies."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], folder: Path | None, log: IO[bytes] | None
    ) -> None:
        """Starts it; `log` takes its output, or None leaves it on ours."""
        self.name = name
        self._process = subprocess.Popen(
            ending_with_us(command),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, patience_s: float) -> None:
        """Sends SIGTERM and, after `patience_s`, kills it; then kills whatever is left in its session."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its children too, if any is left
        self._process.wait(_KILL_WAIT_S)
