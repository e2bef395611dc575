"""A command that is started outside of the project's environment says so in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["export", "gateway", "bench"])
def test_a_python_without_our_packages_is_told_of_the_environment(package: str) -> None:
    bare = [sys.executable, "-S", "-m", package, "--help"]  # -S: nothing that is installed is seen
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "source .venv/bin/activate" in done.stderr and "no package" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
