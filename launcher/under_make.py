"""Runs a program for make and keeps make quiet when it fails: `python -m launcher.under_make MODULE [ARGUMENT ...]`.

A program of ours that fails has printed why. make would add a line, `*** Error`, for any exit code but 0. Ended by
SIGINT, as by Ctrl-C, it adds none, and its own exit code, 130, still says that something failed. A make that ignores
SIGINT (in the background of a script, under nohup) gets the exit code instead. Run MODULE itself for the exact code.

A mistyped variable on make's command line is refused before the program runs: it would serve something else.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path

from launcher.make_variables import misspelled

_INIT = 1
_PAUSE_S = 0.5  # make must take the signal before it learns that its child has ended


def main() -> None:
    del sys.argv[0]
    code = _refusal() or _exit_code_of(sys.argv[0])
    make = os.getppid()
    if code == 0 or make == _INIT or _ignores_sigint(make):  # init: the parent has gone
        sys.exit(code)
    os.kill(make, signal.SIGINT)
    time.sleep(_PAUSE_S)


def _refusal() -> int:
    """The exit code of a wrong command line, whose faults are told; 0 for a right one."""
    sentences = misspelled(os.environ.get("MAKEFLAGS", ""))
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    return 2 if sentences else 0


def _ignores_sigint(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    ignored = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(ignored >> (signal.SIGINT - 1) & 1)


def _exit_code_of(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    main()
