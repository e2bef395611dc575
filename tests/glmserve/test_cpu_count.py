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


def test_hardware_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 8})
    for number, siblings in {0: "0,4", 1: "1-2", 2: "1-2", 3: "3,7"}.items():
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    quota = tmp_path / "cpu.max"
    assert cpu_count.compute_threads(quota, tmp_path) == 4  # of the last one the kernel says nothing


@pytest.mark.parametrize(("quota", "threads"), [("0.5", 1), ("1.5", 1), ("2", 1), ("3.5", 2), ("4", 4), ("9", 4)])
def test_a_quota_lasts_for_more_than_what_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    file = tmp_path / "cpu.max"
    file.write_text(f"{round(100_000 * float(quota))} 100000\n")
    assert cpu_count.compute_threads(file, tmp_path) == threads


@pytest.mark.parametrize(("core_count", "half"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_the_decoder_takes_the_cores_that_it_may_use_and_the_encoder_half_of_them(
    monkeypatch: pytest.MonkeyPatch, core_count: int, half: int
) -> None:
    monkeypatch.setattr(cpu_count, "cores", lambda: core_count)
    monkeypatch.setattr(cpu_count, "compute_threads", lambda: core_count)
    settings = EngineSettings()
    assert (settings.threads, settings.vision_threads) == (core_count, half)
    assert EngineSettings(threads=3).threads == 3
