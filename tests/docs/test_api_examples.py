"""Every example in docs/api.md runs as it stands; those that need an engine do in tests/e2e/test_tools.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
from api_examples import examples
from live_gateway import live_gateway
from rendered_docs import ROOT
from stand_in_build import write_stand_in

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")
EXAMPLES = [example for example in examples() if example not in examples(of_the_engine=True)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    build = tmp_path_factory.mktemp("build")
    write_stand_in(build, "What is it?", None)
    with live_gateway(build) as url:
        yield url


@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=[code.split("\n")[0][:60] for _, code in EXAMPLES])
def test_an_example_runs(url: str, language: str, code: str) -> None:
    code = code.replace("http://127.0.0.1:5000", url)
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-ec", code]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    assert '"error"' not in done.stdout and '"success":false' not in done.stdout


def test_there_are_examples_in_both_languages() -> None:
    assert {language for language, _ in EXAMPLES} == {"sh", "python"} and len(EXAMPLES) >= 6
