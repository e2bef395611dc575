"""The wheel, installed where no checkout is, exports the demo, serves it and answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from bench.ports import free_port

pytestmark = pytest.mark.triton
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120
PORTS = ("PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
PACKAGES = ("demo", "export", "gateway", "glmserve", "launcher")
NOT_PACKED = {"build", "builds", "dist", "docs", "keys", "tests"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools leaves a folder behind."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = shutil.copytree(ROOT, folder / "sources", ignore=not_packed)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources))
    (built,) = folder.glob("glm_triton-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, in which our dependencies are those that are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=WAIT_S)
    pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = folder.glob("lib/python3.*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a user works."""
    return tmp_path_factory.mktemp("elsewhere")


def not_packed(folder: str, names: list[str]) -> set[str]:
    """What no wheel is made of; `build` is a package below, and what setuptools leaves behind above."""
    above = NOT_PACKED | {name for name in names if name.startswith(".")} if Path(folder) == ROOT else set()
    return above | {"__pycache__"}


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, timeout=WAIT_S)


def clean() -> dict[str, str]:
    """Our variables without those that lead Python to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, env=clean(), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_comes_from_the_wheel(environment: Path, elsewhere: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(*(p.__file__ for p in ({', '.join(PACKAGES)})), sep='\\n')"
    files = run(elsewhere, environment / "bin" / "python", "-c", code).splitlines()
    assert len(files) == len(PACKAGES) and all(Path(file).is_relative_to(environment) for file in files)


def test_the_gateways_commands_are_there(environment: Path, elsewhere: Path) -> None:
    assert "| `GLM_GATEWAY_BUILD` |" in run(elsewhere, environment / "bin" / "glm-gateway", "settings")
    assert "Usage: glm-gateway" in run(elsewhere, environment / "bin" / "glm-gateway", "--help")


def test_the_demo_goes_its_whole_way_to_an_answer(environment: Path, elsewhere: Path) -> None:
    said = run(elsewhere, environment / "bin" / "glm-export", "build", "--checkpoint", "demo")
    build = elsewhere / said.splitlines()[-1]
    assert build.parent == elsewhere / "builds" and (build / "certificate.json").is_file()
    serving = subprocess.Popen(
        [environment / "bin" / "glm-serve"],
        cwd=elsewhere,
        env=clean() | {name: str(free_port()) for name in PORTS},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with serving:
        try:
            assert serving.stdout is not None
            lines = []
            for line in serving.stdout:
                lines.append(line)
                if line.startswith("Ctrl-C ends"):
                    break
            question = next(line for line in lines if line.startswith("printf"))
            assert f"Serving build builds/{build.name} of the demo" in "".join(lines)
            answer = json.loads(run(elsewhere, "bash", "-c", question))
            assert answer["success"] is True and answer["result"]
            url = next(line for line in lines if line.startswith("Ready: ")).split()[1]
            with urllib.request.urlopen(url, timeout=WAIT_S) as page:
                assert b"<!doctype html>" in page.read().lower()
            serving.send_signal(signal.SIGINT)
            assert serving.stdout.read().endswith("Ended.\n") and serving.wait(WAIT_S) == 0
        finally:
            serving.kill()
