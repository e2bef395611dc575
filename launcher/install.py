"""Installs packages with pip and says every few seconds how far it is: `python -m launcher.install [pip's options]`.

It runs before anything is installed, so it needs the standard library alone. Two installations into one environment at
a time wait for one another.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REPORT_EVERY_S = 3.0
_COLLECTING = re.compile(r"Collecting ([\w.-]+)")
_DOWNLOADING = re.compile(r"\s*Downloading \S+ \((?P<size>[^)]+)\)")
_INSTALLING = "Installing collected packages: "


class Progress:
    """What pip has said so far, as a sentence. pip's output arrives from one thread, and another asks."""

    def __init__(self, installed_before: int) -> None:
        self._installed_before = installed_before
        self._found = 0
        self._current = ""
        self._total = 0

    def read(self, line: str) -> None:
        """Takes in a line of pip's output."""
        if collecting := _COLLECTING.match(line):
            self._found += 1
            self._current = collecting[1]
        elif downloading := _DOWNLOADING.match(line):
            self._current = f"{self._current.partition(' ')[0]} ({downloading['size']})"
        elif line.startswith(_INSTALLING):
            self._total = line.count(",") + 1

    def sentence(self, installed: int) -> str:
        """How far pip is, given how many packages the environment holds now."""
        if self._total:
            done = min(max(installed - self._installed_before, 0), self._total)
            return f"  Packages installed: {done} of {self._total}."
        if self._found:
            return f"  Packages found so far: {self._found}; now {self._current}."
        return "  Asking the package index ..."


def main() -> None:
    sys.exit(install(sys.argv[1:]))


def install(options: list[str]) -> int:
    """Runs pip, whose errors stay on stderr as they are; returns its exit code."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    with alone_in(Path(sys.prefix)):
        return _run_pip([*pip, *options])


def make_environment(folder: str) -> int:
    """Makes a virtual environment of this Python unless there is one; returns the exit code."""
    with alone_in(Path(folder).absolute().parent):
        if Path(folder, "bin", "pip").exists():  # which is written last
            return 0
        print(f"Making {folder} with {sys.executable} ...", flush=True)
        return subprocess.run([sys.executable, "-m", "venv", folder], check=False).returncode


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which a process that dies gives back; waits for whoever holds it."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another installation into {folder} is running; waiting for its end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _run_pip(command: list[str]) -> int:
    progress = Progress(_installed_packages())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_read, args=(process, progress))
        reader.start()
        while reader.is_alive():
            reader.join(_REPORT_EVERY_S)
            if reader.is_alive():
                print(progress.sentence(_installed_packages()), flush=True)
    return process.returncode


def _read(process: subprocess.Popen[str], progress: Progress) -> None:
    for line in process.stdout or ():
        progress.read(line)


def _installed_packages() -> int:
    return len(list(Path(sysconfig.get_path("purelib")).glob("*.dist-info")))


if __name__ == "__main__":
    main()
