"""`make serve DEVICES=0,1`: two engines behind one gateway, of which one may die while the other answers."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from launched import WAIT_S, launched
from running_service import UNLIMITED, RunningService

from bench.ports import free_port
from bench.usage import words_of
from launcher.devices import PORTS_APART
from launcher.supervision.vital_signs import children_of, stubs_of

pytestmark = pytest.mark.triton
BACK_WITHIN_S = 15.0


def pair_of_ports() -> int:
    """A free port whose fellow of the second engine is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            if port + PORTS_APART <= 65535 and probe.connect_ex(("127.0.0.1", port + PORTS_APART)) != 0:
                return port


@pytest.fixture(scope="module")
def service(stand_in_build: Path) -> Iterator[RunningService]:
    ports = {f"TRITON_{name}_PORT": str(pair_of_ports()) for name in ("HTTP", "GRPC", "METRICS")}
    with launched(BUILD=str(stand_in_build), DEVICES="0,1", GLM_GATEWAY_WORKERS="1", **ports, **UNLIMITED) as launcher:
        yield RunningService(launcher)
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0, launcher.said


def tritons(service: RunningService) -> list[int]:
    """The ids of the tritonservers that run, oldest first."""
    children = children_of(service.launcher.process.pid)
    return sorted(pid for pid in children if any("tritonserver" in word for word in words_of(pid)))


def test_both_start_and_both_are_asked(service: RunningService) -> None:
    assert len(tritons(service)) == 2
    said = service.launcher.said
    assert "Triton of device 0 is ready" in said and "Triton of device 1 is ready" in said
    assert len(set(re.findall(r"Triton is starting on (\S+)", said))) == 2
    numbers = {
        line.partition("=")[2]
        for pid in tritons(service)
        for line in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if line.startswith("GLM_ENGINE_DEVICE_NUMBER=")
    }
    assert numbers == {"0", "1"}
    assert all(service.ask()[0] == 200 for _ in range(8))


@pytest.mark.parametrize("kills_server", [False, True], ids=["stub", "server"])
def test_while_one_is_away_the_other_answers_everybody(service: RunningService, kills_server: bool) -> None:
    assert eventually(lambda: len(tritons(service)) == 2 and service.ask()[0] == 200, WAIT_S)
    victim = tritons(service)[0]
    began = time.monotonic()
    os.kill(victim if kills_server else min(stub.pid for stub in stubs_of(victim)), signal.SIGKILL)
    statuses = []
    while victim in tritons(service) or len(tritons(service)) < 2:
        statuses.append(service.ask()[0])
        assert time.monotonic() - began < BACK_WITHIN_S, service.launcher.said
    assert set(statuses) <= {200}, statuses
    ready = "Triton of device [01] is ready"
    assert eventually(lambda: len(re.findall(ready, service.launcher.said)) >= 3, BACK_WITHIN_S)
    assert service.answers_curl()
