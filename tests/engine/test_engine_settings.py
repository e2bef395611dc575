"""The engine's settings: a misspelt name or a senseless value is a line that says so, wherever they are read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadSettings


def _moved(old: str, new: str) -> str:
    return f"GLM_ENGINE_{old}: unknown setting; it is now called GLM_ENGINE_{new}."


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SLOT", "4", "GLM_ENGINE_SLOT: unknown setting; did you mean GLM_ENGINE_SLOTS?"),
        ("PICTURE_CACHE_MIB", "4", _moved("PICTURE_CACHE_MIB", "IMAGE_CACHE_MIB")),
        ("PICTURE_READERS", "4", _moved("PICTURE_READERS", "IMAGE_READERS")),
        ("RIDGE_TOKENS", "4", _moved("RIDGE_TOKENS", "MIN_CHUNK_TOKENS")),
        ("NONSENSE", "4", "GLM_ENGINE_NONSENSE: unknown setting."),
        ("SLOTS", "0", "GLM_ENGINE_SLOTS=0: must be at least 1."),
        ("SLOTS", "1025", "GLM_ENGINE_SLOTS=1025: must be at most 1024."),
        ("DEVICE", "gpu", "GLM_ENGINE_DEVICE=gpu: must be auto, cpu or cuda."),
        ("MEMORY_UTILIZATION", "0", "GLM_ENGINE_MEMORY_UTILIZATION=0: must be more than 0."),
        ("CUDA_GRAPHS", "perhaps", "GLM_ENGINE_CUDA_GRAPHS=perhaps: must be true or false."),
    ],
)
def test_a_wrong_setting_is_a_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str) -> None:
    monkeypatch.setenv(f"GLM_ENGINE_{name}", value)
    with pytest.raises(BadSettings) as caught:
        EngineSettings.read()
    assert caught.value.message == line


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_ENGINE_SLOTS", "3")
    assert EngineSettings.read().slots == 3


@pytest.mark.parametrize(
    ("slots", "code", "said"), [("3", 0, ""), ("0", 1, "GLM_ENGINE_SLOTS=0: must be at least 1.\n")]
)
def test_they_can_be_checked_alone(slots: str, code: int, said: str) -> None:
    environment = {**os.environ, "GLM_ENGINE_SLOTS": slots}
    command = [sys.executable, "-m", "glmserve.engine"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
