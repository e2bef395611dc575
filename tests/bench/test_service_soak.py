"""A short soak of the whole service: every request ends as its kind must, and each part is measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from shared_builds import build_of_demo, copied

from bench.measure import service_soak


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> service_soak.ServiceSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_soak, "_CROWD_S", 2.0)
        patch.setattr(service_soak, "_PAUSE_S", 1.0)
        patch.setattr(service_soak, "_SETTLE_S", 1.0)
        made = copied(build_of_demo(), tmp_path_factory.mktemp("soak"))
        return service_soak.soak(made, minutes=1 / 10, threads=1, seed=0, say=print)


@pytest.mark.triton
def test_every_request_ends_as_its_kind_must(summary: service_soak.ServiceSummary) -> None:
    assert set(summary.endings) <= {"answered", "streamed", "text", "by schema", "left", "refused: 400"}
    assert {"answered", "streamed", "refused: 400"} <= set(summary.endings)
    assert summary.requests == sum(summary.endings.values())
    assert json.loads(json.dumps(asdict(summary) | {"passed": summary.passed}))["load"] == 0.7


@pytest.mark.triton
def test_each_part_of_the_service_is_measured(summary: service_soak.ServiceSummary) -> None:
    assert set(summary.parts) == {"Triton", "gateway"}
    assert all(part.pss_mib > 20 for part in summary.parts.values())


@pytest.mark.triton
def test_a_soak_fails_for_growth_and_for_a_wrong_ending(summary: service_soak.ServiceSummary) -> None:
    calm = service_soak.Growth(100.0, 0.0, 0.0, 0, 0)
    good = replace(summary, parts={"Triton": calm, "gateway": calm}, endings=dict.fromkeys(summary.endings, 1))
    assert replace(good, endings=dict.fromkeys(service_soak.RIGHT, 1)).passed
    assert not replace(good, endings=dict.fromkeys((*service_soak.RIGHT, "left: 503"), 1)).passed
    for worse in (replace(calm, pss_growth_mib=20.0), replace(calm, thread_growth=1), replace(calm, file_growth=2)):
        assert not replace(good, endings=dict.fromkeys(service_soak.RIGHT, 1), parts={"gateway": worse}).passed


def test_growth_is_a_line_through_memory_and_the_least_of_threads_and_files() -> None:
    at_s = np.arange(0.0, 3600.0, 5.0)
    chance = np.random.default_rng(0)
    noise = chance.normal(0, 0.5, len(at_s))
    threads, files = 30 + chance.integers(0, 5, len(at_s)), 50 + chance.integers(0, 9, len(at_s)) + (at_s > 1800)
    grown = service_soak.growth(at_s, np.stack([300 + at_s / 3600 + noise, threads, files], axis=1))
    assert 0.8 < grown.pss_mib_per_hour < 1.2 and grown.thread_growth == 0 and grown.file_growth == 1
