"""A machine's cores are counted as this process may use them, wherever a default depends on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glmserve.engine.settings import EngineSettings
from glmserve.system import cpu_count


@pytest.mark.parametrize(("quota", "most"), [("100000 100000\n", 1), ("max 100000\n", 10**6), ("junk", 10**6)])
def test_a_containers_share_of_time_bounds_the_cores(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert 1 <= cpu_count.cores(file) <= min(most, len(os.sched_getaffinity(0)))
    assert cpu_count.cores(tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("core_count", "threads"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_the_engine_takes_half_of_the_cores_that_it_may_use(
    monkeypatch: pytest.MonkeyPatch, core_count: int, threads: int
) -> None:
    monkeypatch.setattr(cpu_count, "cores", lambda: core_count)
    settings = EngineSettings()
    assert (settings.threads, settings.vision_threads) == (threads, threads)
    assert EngineSettings(threads=3).threads == 3
