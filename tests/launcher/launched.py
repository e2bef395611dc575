"""Runs `python -m launcher` as a user does, and reads what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench.ports import free_port

PROJECT = Path(__file__).parents[2]
WAIT_S = 60
PORTS = ("PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")


class Launcher:
    """One launcher process and what it has printed so far."""

    def __init__(self, **environment: str) -> None:
        self.ports = {name: str(free_port()) for name in PORTS}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launcher"],
            cwd=PROJECT,
            env={**os.environ, **self.ports, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, words: str) -> None:
        with self._changed:
            found = self._changed.wait_for(lambda: words in self.said or self.process.poll() is not None, WAIT_S)
        assert found and words in self.said, self.said

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def end(self) -> int:
        """The exit code, once its output is closed too."""
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()
        self.process.wait()  # it closes its output a moment before it has ended
        with self._changed:
            self._changed.notify_all()


@contextmanager
def launched(**environment: str) -> Generator[Launcher]:
    launcher = Launcher(**environment)
    try:
        yield launcher
    finally:
        if launcher.process.poll() is None:
            launcher.process.kill()
        launcher.end()
