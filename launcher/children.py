"""A process that cannot outlive us and always comes to an end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_KILL_WAIT_S = 5.0


class Child:
    """One process in a session of its own, so that Ctrl-C reaches only us; the kernel ends it when we die.

    Linux ties that last promise to the thread that starts the process: start it from one that stays.
    """

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], folder: Path | None, log: IO[bytes] | None
    ) -> None:
        """Starts it; `log` takes its output, or None leaves it on ours."""
        self.name = name
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, patience_s: float) -> None:
        """Asks it to end and, after `patience_s`, ends it and everything in its session."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its own children as well, should one have stayed
        self._process.wait(_KILL_WAIT_S)


def _die_with(parent: int) -> Callable[[], None]:
    """What the new process does before it becomes the command; the library is loaded here, not after the fork."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare
