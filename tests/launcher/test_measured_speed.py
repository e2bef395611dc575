"""What the engine measured at its start becomes a warning where ordinary answers would not end in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.builds import LEAST_START_TIMEOUT_S, start_timeout_s
from launcher.supervision.measured_speed import MeasuredSpeed

PAGE = """# TYPE glm_measured_step_seconds gauge
glm_measured_step_seconds{model="glm4v",version="1"} 0.52
glm_measured_prompt_token_seconds{model="glm4v",version="1"} 0.13
glm_measured_image_patch_seconds 0.0045
glm_engine_healthy 1
"""
SETTING = "GLM_GATEWAY_DEADLINE_S"


def test_a_slow_machine_is_foretold_with_the_setting_that_helps() -> None:
    speed = MeasuredSpeed.read(PAGE)
    assert speed is not None and 55 < speed.photo_s < 65
    warning = str(speed.warning(30, SETTING))
    assert "60 s until the first token" in warning and "0.52 s" in warning
    assert "allows 30 s" in warning and f"{SETTING}=240" in warning and "PRECISION=int4" in warning


def test_a_machine_that_is_fast_enough_is_not_warned_of() -> None:
    assert MeasuredSpeed(0.005, 0.001, 0.0001).warning(30, SETTING) is None
    speed = MeasuredSpeed.read(PAGE)
    assert speed is not None and speed.warning(600, SETTING) is None


@pytest.mark.parametrize("missing", ["step", "prompt_token", "image_patch"])
def test_nothing_is_said_where_something_was_not_measured(missing: str) -> None:
    lines = [line for line in PAGE.splitlines() if f"glm_measured_{missing}_seconds" not in line]
    assert MeasuredSpeed.read("\n".join(lines)) is None and MeasuredSpeed.read("") is None


@pytest.mark.parametrize(("size", "seconds"), [(0, LEAST_START_TIMEOUT_S), (20_600_000_000, 2060)])
def test_a_large_build_may_take_longer_to_load(tmp_path: Path, size: int, seconds: float) -> None:
    (tmp_path / REPOSITORY_FOLDER).mkdir()
    with (tmp_path / REPOSITORY_FOLDER / "weights").open("wb") as file:
        file.truncate(size)  # takes no room
    assert start_timeout_s(tmp_path) == seconds
