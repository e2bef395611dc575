"""A child process ends when it is told to, politely or not."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.children import Child

STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)


def start(code: str, log: Path) -> Child:
    with log.open("wb") as file:
        return Child("test", [sys.executable, "-c", code], {}, None, file)


def test_a_polite_child_is_not_waited_for_longer_than_it_takes(tmp_path: Path) -> None:
    child = start("import time; time.sleep(60)", tmp_path / "log")
    assert child.exit_code() is None
    child.stop(30)
    assert child.exit_code() == -15


def test_a_child_that_will_not_hear_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start(STUBBORN, log)
    while "up" not in log.read_text():
        assert child.exit_code() is None
    child.stop(0.1)
    assert child.exit_code() == -9


def test_a_child_that_has_ended_can_be_stopped(tmp_path: Path) -> None:
    child = start("raise SystemExit(3)", tmp_path / "log")
    while child.exit_code() is None:
        pass
    child.stop(1)
    assert child.exit_code() == 3
