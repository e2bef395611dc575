"""The real service on a build that knows tools, and the clients' own environment, which `make test-clients` sets up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rendered_docs import ROOT
from serving import serving
from shared_builds import build_with_tools

PYTHON = ROOT / ".clients" / "bin" / "python"
JAVASCRIPT = Path(__file__).parent / "javascript"
TIMEOUT_S = 240
Run = Callable[[str, str], str]


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the service answers."""
    if not PYTHON.exists():
        pytest.skip("the clients are not installed: make test-clients does that")
    with serving(build_with_tools()) as service:
        yield service.gateway.url


@pytest.fixture
def run(url: str, tmp_path: Path) -> Run:
    """Runs a program in Python or JavaScript, whose service is this one, and returns what it printed."""

    def ran(language: str, code: str) -> str:
        code = code.replace("http://127.0.0.1:5000", url)
        if language == "py":
            command, folder = [str(PYTHON), "-c", code], tmp_path
        else:
            if not (JAVASCRIPT / "node_modules").is_dir() or not shutil.which("node"):
                pytest.skip(
                    "the clients in JavaScript are not installed: make test-clients does that where there is npm"
                )
            command, folder = ["node", "--input-type=module", "--eval", code], JAVASCRIPT
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return ran


def _environment(home: Path) -> dict[str, str]:
    """Without this process' own packages, and with nothing that a client would send elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LANGSMITH_TRACING": "false"}
    return {**kept, **quiet, "HOME": str(home), "LLM_USER_PATH": str(home), "NO_PROXY": "*"}
