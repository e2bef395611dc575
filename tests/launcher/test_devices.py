"""Which engines `make serve` starts, and how a group of them lives on when one fails for good."""

from __future__ import annotations

from typing import Any, cast

import pytest

from glmserve.system.cpu_count import compute_threads, cores
from launcher.devices import engines
from launcher.settings import WrongSettings
from launcher.supervision.triton_group import TritonGroup
from launcher.supervision.triton_supervisor import TritonSupervisor
from launcher.triton_server import TritonFailed

PORTS = (8000, 8001, 8002)


def test_without_devices_there_is_one_engine_as_the_environment_has_it() -> None:
    (only,) = engines(None, *PORTS, {"GLM_ENGINE_DEVICE_NUMBER": "3"})
    assert only.environment == {} and [port.number for port in only.ports] == list(PORTS)


def test_each_device_has_an_engine_with_ports_and_a_number_of_its_own() -> None:
    first, second = engines("0, 2", *PORTS, {})
    assert [port.number for port in (*first.ports, *second.ports)] == [*PORTS, 8010, 8011, 8012]
    assert [engine.environment["GLM_ENGINE_DEVICE_NUMBER"] for engine in (first, second)] == ["0", "2"]
    assert (first.name, second.grpc_url) == ("Triton of device 0", "grpc://127.0.0.1:8011")


def test_several_engines_share_the_processor_unless_the_environment_says_how() -> None:
    given, *_ = engines("0,1", *PORTS, {"GLM_ENGINE_THREADS": "5"})
    assert "GLM_ENGINE_THREADS" not in given.environment
    assert given.environment["GLM_ENGINE_VISION_THREADS"] == str(max(1, cores() // 4))
    shared, *_ = engines("0,1", *PORTS, {})
    assert shared.environment["GLM_ENGINE_THREADS"] == str(max(1, compute_threads() // 2))
    (alone,) = engines("1", *PORTS, {})
    assert alone.environment == {"GLM_ENGINE_DEVICE_NUMBER": "1"}


@pytest.mark.parametrize(
    ("devices", "environment", "said"),
    [
        ("", {}, "no list of devices"),
        ("0,", {}, "no list of devices"),
        ("0;1", {}, "no list of devices"),
        ("-1", {}, "no list of devices"),
        ("all", {}, "no list of devices"),
        ("1,0,1", {}, "names a device twice"),
        (",".join(map(str, range(17))), {}, "17 devices; at most 16"),
        ("0,1", {"GLM_ENGINE_DEVICE_NUMBER": "1"}, "leave one out"),
    ],
)
def test_devices_that_cannot_be_are_refused_in_words(devices: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(WrongSettings, match=said):
        engines(devices, *PORTS, environment)


def test_an_engine_without_room_for_its_ports_is_refused() -> None:
    with pytest.raises(WrongSettings, match=r"engine 1 would need port 65540; choose lower TRITON_\*_PORT"):
        engines("0,1", 65530, 65529, 65528, {})


class Fake:
    """A supervisor that is ready, or fails, as it is told."""

    def __init__(self, name: str) -> None:
        self.name, self.is_ready, self.fails, self.looks, self.is_stopped = name, False, False, 0, False

    def look(self) -> None:
        self.looks += 1
        if self.fails:
            self.is_ready = False
            raise TritonFailed(f"{self.name} failed 5 times")

    def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def fakes() -> list[Fake]:
    return [Fake("Triton of device 0"), Fake("Triton of device 1")]


def group_of(fakes: list[Fake], said: list[str]) -> TritonGroup:
    return TritonGroup(cast(list[TritonSupervisor], cast(Any, fakes)), said.append)


def test_a_group_is_ready_when_all_are_and_a_first_start_that_fails_ends_it(fakes: list[Fake]) -> None:
    group = group_of(fakes, [])
    fakes[0].is_ready = True
    group.look()
    assert not group.is_ready
    fakes[1].fails = True
    with pytest.raises(TritonFailed):
        group.look()


def test_one_that_fails_for_good_is_given_up_and_the_last_ones_failure_is_everybodys(fakes: list[Fake]) -> None:
    said: list[str] = []
    group = group_of(fakes, said)
    fakes[0].is_ready = fakes[1].is_ready = True
    group.look()
    fakes[0].fails = True
    group.look()
    assert group.is_ready and "Triton of device 0 is given up; the others serve on." in said[0]
    looks = fakes[0].looks
    group.look()
    assert fakes[0].looks == looks and fakes[1].looks == 3
    fakes[1].fails = True
    with pytest.raises(TritonFailed, match="device 1"):
        group.look()
