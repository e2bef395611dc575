"""The program that times repairs says in a sentence what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("recovery.py")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["0"], 2, "TIMES must be 1 or more"),
        (["often"], 2, "invalid int value: 'often'"),
        (["1", "", "no such fault"], 2, "ONLY stand in one of: glm4v's process: SIGKILL"),
        (["1", "no-such-build"], 1, "There is no build no-such-build"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr, done.stderr
