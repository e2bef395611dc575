"""The load profiles are bounded in time and end, whoever they are pointed at."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "bench" / "profiles"


@pytest.mark.parametrize(("asked", "given"), [([], 30), (["LOAD_SECONDS=10"], 10), (["LOAD_SECONDS=4000"], 300)])
def test_make_load_never_asks_for_more_than_five_minutes(asked: list[str], given: int) -> None:
    done = subprocess.run(
        ["make", "-n", "load", *asked], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert f"--run-time {given}s" in done.stdout and "--headless" in done.stdout
    assert "--host http://127.0.0.1:5000" in done.stdout


@pytest.mark.parametrize(("asked", "given"), [({}, "30"), ({"LOAD_SECONDS": "4000"}, "300")])
def test_the_aiperf_profile_is_bounded_too(asked: dict[str, str], given: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "aiperf"
    stand_in.write_text('#!/bin/sh\necho "$@"\n', "utf-8")
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **asked}
    command = [PROFILES / "aiperf.sh"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10, check=True)
    assert f"--benchmark-duration {given} " in done.stdout
    assert "--endpoint /v1/chat/completions" in done.stdout and "--concurrency 8 " in done.stdout


def test_the_locust_profile_asks_addresses_that_are_served() -> None:
    asked = set(re.findall(r'"(/v1/[\w/]+)"', (PROFILES / "locustfile.py").read_text("utf-8")))
    served = "".join(path.read_text("utf-8") for path in (ROOT / "gateway" / "api").glob("*.py"))
    assert asked == {"/v1/chat/vision", "/v1/chat/completions"}
    assert all(f'"{path}"' in served for path in asked)
