"""Three Tritons, two gateways and nginx: some are killed, some come back on a new build, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load.prompts import Question
from bench.load.steady import steady_load
from bench.measure.replicas import gateway_death, question_of, triton_death, triton_return
from bench.servers.fleet import Fleet, fleet_of
from bench.servers.paced_engine import Pace
from bench.servers.stub_build import write_stub_build
from bench.simulation.step_times import StepTimes

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"),
]
TIMES = StepTimes(decode_s=0.03, row_s=0.0, prefill_s=0.005, token_s=0.0001)
CLIENTS = 16
SILENCE_S = 1.0


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("builds")
    return [write_stub_build(out, Pace(TIMES, letter)) for letter in "ab"]


@pytest.fixture(scope="module")
def question(builds: list[Path]) -> Question:
    return question_of(builds[0])


@pytest.fixture(scope="module")
def fleet(builds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet"), builds[0], tritons=3, gateways=2) as running:
        yield running


@pytest.mark.alone
def test_a_triton_dies_and_returns_and_a_gateway_dies(fleet: Fleet, builds: list[Path], question: Question) -> None:
    with steady_load(fleet.url, question, CLIENTS) as load:
        load.wait_for(3 * CLIENTS, timeout_s=30)
        found = triton_death(fleet, load) | triton_return(fleet, builds[0]) | gateway_death(fleet, load)
    strange = [ending for ending in load.endings if ending.is_lost and not (ending.how == "cut" and ending.words)]
    assert not strange
    assert found["triton_death_lost"] == found["gateway_death_lost"] == 0
    assert max(found["triton_death_silence_s"], found["gateway_death_silence_s"]) <= SILENCE_S
    assert 0.15 < found["returned_share"] < 0.6, "it does its part, and no more"


def test_a_new_build_goes_out_and_no_request_fails(fleet: Fleet, builds: list[Path], question: Question) -> None:
    with steady_load(fleet.url, question, CLIENTS) as load:
        fleet.revive_gateway(0, builds[1])
        fleet.revive_triton(1, builds[1])
        load.wait_for(len(load.endings) + 4 * CLIENTS, timeout_s=30)
    assert not [ending for ending in load.endings if ending.how != "done"]
    late = load.endings[-2 * CLIENTS :]
    assert {ending.text[:1] for ending in late} == {"a", "b"}, "the new Triton answers, and so do the others"
