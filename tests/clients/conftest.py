"""The real service on a build that knows tools, and the clients' own environment, which `make test-clients` sets up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client_programs import (
    AGENT_PROGRAMS,
    AGENTS_PYTHON,
    DOCUMENTED,
    HERE,
    JAVASCRIPT,
    PROGRAMS,
    PYTHON,
    examples,
    is_of_agents,
)
from serving import serving
from shared_builds import build_with_tools

TIMEOUT_S = 500


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the service answers."""
    if not PYTHON.exists():
        pytest.skip("the clients are not installed: make test-clients does that")
    with serving(build_with_tools()) as service:
        yield service.gateway.url


@pytest.fixture(scope="session")
def printed_by_python(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What each program and each example in Python printed, and how it failed."""
    shown = {name: code for name, code in examples("api.md").items() if name.startswith("py: ")}
    theirs = {name: code for name, code in shown.items() if is_of_agents(code)}
    ours = {name: code for name, code in shown.items() if name not in theirs}
    printed = _printed(PYTHON, {**PROGRAMS, **ours}, url, tmp_path_factory.mktemp("home"))
    return printed | _printed(AGENTS_PYTHON, {**AGENT_PROGRAMS, **theirs}, url, tmp_path_factory.mktemp("home"))


def _printed(python: Path, programs: dict[str, str], url: str, home: Path) -> dict[str, dict[str, str]]:
    asked = json.dumps(programs).replace(DOCUMENTED, url)
    done = _run([str(python), str(HERE / "run_all.py")], home, home, asked)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    assert len(lines) == len(programs), done.stdout[-2000:] + done.stderr[-2000:]
    return {line["name"]: line for line in lines}


@pytest.fixture
def printed_by_javascript(url: str, tmp_path: Path) -> Callable[[str], str]:
    """Runs a program in JavaScript and returns what it printed."""

    def ran(code: str) -> str:
        if not (JAVASCRIPT / "node_modules").is_dir() or not shutil.which("node"):
            pytest.skip("the clients in JavaScript are not installed: make test-clients does that where there is npm")
        command = ["node", "--input-type=module", "--eval", code.replace(DOCUMENTED, url)]
        done = _run(command, JAVASCRIPT, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return ran


def _run(command: list[str], folder: Path, home: Path, sent: str = "") -> subprocess.CompletedProcess[str]:
    """Without this process' own packages, and with nothing that a client would send elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false"}
    environment = {**kept, **quiet, "HOME": str(home), "LLM_USER_PATH": str(home), "NO_PROXY": "*"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=sent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
