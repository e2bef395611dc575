"""`make serve` mends itself: whatever part dies or stands still, the same address answers again within 15 s."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from eventually import eventually
from launched import WAIT_S, launched
from running_service import UNLIMITED, RunningService
from servers import is_alive

from bench.usage import descendants
from gateway.triton.backend import GenerateRequest
from gateway.triton.http_client import TritonHttpBackend
from glmserve.errors import GlmServeError
from glmserve.sampling_parameters import Sampling
from glmserve.system.stopped import is_stopped
from launcher.cli import Exit

pytestmark = pytest.mark.triton
BACK_WITHIN_S = 15.0
ENDS_WITHIN_S = 2.0
LONG = 2000


def back_after_s(service: RunningService, began: float) -> float:
    """When it answered again; what came meanwhile was a refusal that says when to come back, or no connection."""
    while True:
        status, retry_after, body = service.ask()
        if status == 200:
            return time.monotonic() - began
        assert status == 0 or (status == 503 and int(retry_after) >= 1), (status, retry_after, body)
        assert time.monotonic() - began < BACK_WITHIN_S, service.launcher.said
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(stand_in_build: Path) -> Iterator[RunningService]:
    with launched(BUILD=str(stand_in_build), GLM_GATEWAY_WORKERS="1", **UNLIMITED) as launcher:
        yield RunningService(launcher)
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0, launcher.said


@pytest.fixture(autouse=True)
def whole(service: RunningService) -> None:
    """Each test finds a service that answers."""
    assert eventually(lambda: service.ask()[0] == 200, WAIT_S)


FAULTS: dict[str, tuple[Callable[[RunningService], int], int]] = {
    "a model's process is killed": (lambda service: service.stub(0), signal.SIGKILL),
    "tritonserver is killed": (lambda service: service.child("tritonserver"), signal.SIGKILL),
    "the only worker is killed": (RunningService.worker, signal.SIGKILL),
    "the only worker is stopped": (RunningService.worker, signal.SIGSTOP),
    "gunicorn's master is killed": (lambda service: service.child("gunicorn"), signal.SIGKILL),
    "gunicorn's master is stopped": (lambda service: service.child("gunicorn"), signal.SIGSTOP),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_answers_again_within_15_seconds_when(fault: str, service: RunningService) -> None:
    process, number = FAULTS[fault]
    pid = process(service)
    began = time.monotonic()
    os.kill(pid, number)
    time.sleep(0.02)  # until the last thread of a stopped one stands still
    assert eventually(lambda: not is_alive(pid) or (number == signal.SIGSTOP and not is_stopped(pid)), BACK_WITHIN_S)
    assert back_after_s(service, began) < BACK_WITHIN_S
    assert eventually(service.answers_curl, BACK_WITHIN_S - (time.monotonic() - began))


def test_a_stop_of_the_models_process_ends_no_answer_though_requests_come_meanwhile(service: RunningService) -> None:
    """Triton gives up a process of a model that takes no request for a second."""
    stopped = service.stub(0)
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(service.ask, 300) for _ in range(2)]
        assert eventually(service.is_answering, WAIT_S)
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(0.1)
        come = [pool.submit(service.ask) for _ in range(2)]
        assert [asked.result(timeout=WAIT_S)[0] for asked in (*under_way, *come)] == [200] * 4
    assert service.stub(0) == stopped


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_under_way_ends_within_two_seconds_of_a_death(is_stream: bool, service: RunningService) -> None:
    with ThreadPoolExecutor(1) as pool:
        begun = threading.Event()
        asking = pool.submit(service.ask, LONG, is_stream, begun.set)
        assert begun.wait(WAIT_S) if is_stream else eventually(service.is_answering, WAIT_S)
        time.sleep(1)  # into the answer
        os.kill(service.stub(0), signal.SIGKILL)
        status, retry_after, body = asking.result(timeout=ENDS_WITHIN_S)
    assert body.count("backend_down") == 1
    assert status == (200 if is_stream else 503)
    assert is_stream or int(retry_after) >= 1


def test_answers_over_http_come_back_when_the_process_of_glm4v_whole_is_killed(service: RunningService) -> None:
    backend = TritonHttpBackend(f"http://127.0.0.1:{service.launcher.ports['TRITON_HTTP_PORT']}")

    def answers() -> bool:
        question = GenerateRequest("r1", np.arange(4, dtype=np.int64), None, (), Sampling(max_tokens=3), 5.0)
        try:
            return len(next(iter(backend.generate(question))).tokens) == 3
        except GlmServeError:
            return False

    assert answers()
    victim = service.stub(-1)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: not is_alive(victim), ENDS_WITHIN_S)
    assert eventually(answers, BACK_WITHIN_S) and time.monotonic() - began < BACK_WITHIN_S


def test_readiness_is_red_at_once_and_the_gateway_stays_up_while_triton_is_away(service: RunningService) -> None:
    def readiness() -> int:
        try:
            with urllib.request.urlopen(f"{service.url}/health/ready", timeout=WAIT_S) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert eventually(lambda: readiness() == 200)
    gateway = service.child("gunicorn")
    os.kill(service.child("tritonserver"), signal.SIGKILL)
    assert eventually(lambda: readiness() == 503, 1.0)
    assert eventually(lambda: readiness() == 200, BACK_WITHIN_S)
    assert service.child("gunicorn") == gateway


def test_it_ends_cleanly_while_triton_is_being_started_again(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as launcher:
        service = RunningService(launcher)
        os.kill(service.child("tritonserver"), signal.SIGKILL)
        launcher.wait_for("Starting it again")
        processes = descendants(launcher.process.pid)
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0, launcher.said
        assert not [pid for pid in processes if is_alive(pid)]


def test_a_part_that_fails_again_and_again_is_given_up_in_words(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as launcher:
        service = RunningService(launcher)
        while launcher.process.poll() is None:
            try:
                os.kill(service.child("tritonserver"), signal.SIGKILL)  # before it can serve
            except (AssertionError, OSError):
                time.sleep(0.05)
        assert launcher.end() == Exit.CHILD_DIED
        assert "Triton failed 6 times within 10 minutes" in launcher.said


def test_a_start_right_after_a_launcher_was_killed_waits_for_what_it_left(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as first:
        server = RunningService(first).child("tritonserver")
        os.kill(server, signal.SIGSTOP)  # takes its time to end
        first.process.kill()
        first.process.wait(WAIT_S)
        with launched(BUILD=str(stand_in_build), **first.ports) as second:
            second.wait_for("is held by a service that is ending")
            os.kill(server, signal.SIGCONT)
            second.wait_for("Ctrl-C ends the service.")
            second.process.send_signal(signal.SIGTERM)
            assert second.end() == 0


def test_a_start_while_the_last_service_ends_waits_for_it(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build), GLM_GATEWAY_WORKERS="1") as first, ThreadPoolExecutor(1) as pool:
        service = RunningService(first)
        asking = pool.submit(service.ask, 700)
        assert eventually(service.is_answering, WAIT_S)
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("Ending: the gateway finishes")
        with launched(BUILD=str(stand_in_build), **first.ports) as second:
            second.wait_for("is held by a service that is ending")
            assert asking.result(timeout=WAIT_S)[0] == 200
            second.wait_for("Ctrl-C ends the service.")
            second.process.send_signal(signal.SIGTERM)
            assert second.end() == 0


def test_of_two_services_that_start_at_once_on_the_same_triton_ports_one_serves_and_one_says_why_not(
    stand_in_build: Path,
) -> None:
    with launched(BUILD=str(stand_in_build)) as first:
        ports = {name: port for name, port in first.ports.items() if name != "PORT"}
        with launched(BUILD=str(stand_in_build), **ports) as second:
            both = (first, second)
            assert eventually(lambda: any(one.process.poll() is not None for one in both), WAIT_S)
            loser, winner = sorted(both, key=lambda one: one.process.poll() is None)
            assert loser.end() in (Exit.TRITON_FAILED, Exit.UNUSABLE_PORT)
            assert "Triton failed to start" in loser.said or "Another Triton" in loser.said or "taken" in loser.said
            assert "Ready:" not in loser.said
            assert RunningService(winner).ask()[0] == 200


def test_systemd_hears_how_the_service_is(stand_in_build: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(WAIT_S)

        def hears(state: str) -> None:
            while not heard or heard[-1] != state:
                heard.append(systemd.recv(4096).decode())

        asked = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with launched(BUILD=str(stand_in_build), **asked) as launcher:
            hears("STATUS=Starting.")
            hears("READY=1")
            hears("WATCHDOG=1")
            service = RunningService(launcher)
            os.kill(service.child("tritonserver"), signal.SIGKILL)
            hears("STATUS=A part has failed and is being started again.")
            hears("STATUS=Serving.")
            launcher.process.send_signal(signal.SIGTERM)
            hears("STOPPING=1")
            assert launcher.end() == 0
    assert heard.count("READY=1") == 1
