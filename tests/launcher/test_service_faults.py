"""`make serve` mends itself: whatever part dies or stands still, the same address answers again within 15 s."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from eventually import eventually
from launched import WAIT_S, Launcher, launched
from servers import children_of, is_alive

from gateway.triton.backend import GenerateRequest
from gateway.triton.http_client import TritonHttpBackend
from glmserve.errors import GlmServeError
from glmserve.sampling_parameters import Sampling
from launcher.cli import Exit
from launcher.vital_signs import stubs_of

pytestmark = pytest.mark.triton
BACK_WITHIN_S = 15.0
ENDS_WITHIN_S = 2.0
SHORT, LONG = 4, 2000


class Service:
    """A running `make serve` and its processes."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        launcher.wait_for("Ctrl-C ends the service.")
        found = re.search(r"Ready: (\S+)", launcher.said)
        assert found
        self.url = found[1]
        self.curl = next(line for line in launcher.lines if line.startswith("printf"))

    def child(self, program: str) -> int:
        """The launcher's own child with this in its command line."""
        for task in Path(f"/proc/{self.launcher.process.pid}/task").glob("*/children"):
            for pid in map(int, task.read_text().split()):
                if program in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        raise AssertionError(program)

    def stub(self, which: int) -> int:
        return sorted(stub.pid for stub in stubs_of(self.child("tritonserver")))[which]

    def worker(self) -> int:
        return children_of(self.child("gunicorn"))[0]

    def ask(self, max_tokens: int = SHORT, is_stream: bool = False) -> tuple[int, str, str]:
        """Status, Retry-After and body; status 0 where nobody answered."""
        body = {
            "model": "GLM-4.6V-Flash-WEB",
            "messages": [{"role": "user", "content": "Say something."}],
            "max_tokens": max_tokens,
            "stream": is_stream,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                return reply.status, "", reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Retry-After", ""), error.read().decode()
        except OSError:
            return 0, "", ""

    def answers_curl(self) -> bool:
        """Whether the printed line gets an answer. Just after its master's death an orphaned worker may take a request
        and die."""
        done = subprocess.run(["bash", "-c", self.curl], capture_output=True, check=False, timeout=WAIT_S)
        return done.returncode == 0 and json.loads(done.stdout).get("success") is True

    def back_after_s(self, began: float) -> float:
        """When it answered again; what came meanwhile was a refusal that says when to come back, or no connection."""
        while True:
            status, retry_after, body = self.ask()
            if status == 200:
                return time.monotonic() - began
            assert status == 0 or (status == 503 and int(retry_after) >= 1), (status, retry_after, body)
            assert time.monotonic() - began < BACK_WITHIN_S, self.launcher.said
            time.sleep(0.1)


@pytest.fixture(scope="module")
def service(stand_in_build: Path) -> Iterator[Service]:
    with launched(BUILD=str(stand_in_build), GLM_GATEWAY_WORKERS="1") as launcher:
        yield Service(launcher)
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0, launcher.said


@pytest.fixture(autouse=True)
def whole(service: Service) -> None:
    """Each test finds a service that answers."""
    assert eventually(lambda: service.ask()[0] == 200, WAIT_S)


FAULTS: dict[str, tuple[Callable[[Service], int], int]] = {
    "a model's process is killed": (lambda service: service.stub(0), signal.SIGKILL),
    "tritonserver is killed": (lambda service: service.child("tritonserver"), signal.SIGKILL),
    "the only worker is killed": (Service.worker, signal.SIGKILL),
    "the only worker is stopped": (Service.worker, signal.SIGSTOP),
    "gunicorn's master is killed": (lambda service: service.child("gunicorn"), signal.SIGKILL),
    "gunicorn's master is stopped": (lambda service: service.child("gunicorn"), signal.SIGSTOP),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_answers_again_within_15_seconds_when(fault: str, service: Service) -> None:
    process, number = FAULTS[fault]
    pid = process(service)
    began = time.monotonic()
    os.kill(pid, number)
    assert eventually(lambda: not is_alive(pid), BACK_WITHIN_S)  # a stopped one is ended too
    assert service.back_after_s(began) < BACK_WITHIN_S
    assert eventually(service.answers_curl, BACK_WITHIN_S - (time.monotonic() - began))


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_under_way_ends_within_two_seconds_of_a_death(is_stream: bool, service: Service) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(service.ask, LONG, is_stream)
        time.sleep(1)  # into the answer
        os.kill(service.stub(0), signal.SIGKILL)
        status, retry_after, body = asking.result(timeout=ENDS_WITHIN_S)
    assert body.count("backend_down") == 1
    assert status == (200 if is_stream else 503)
    assert is_stream or int(retry_after) >= 1


def test_answers_over_http_come_back_when_the_process_of_glm4v_whole_is_killed(service: Service) -> None:
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


def test_readiness_is_red_at_once_and_the_gateway_stays_up_while_triton_is_away(service: Service) -> None:
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
        service = Service(launcher)
        os.kill(service.child("tritonserver"), signal.SIGKILL)
        launcher.wait_for("Starting it again")
        processes = children_of(launcher.process.pid)
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0, launcher.said
        assert not [pid for pid in processes if is_alive(pid)]


def test_a_part_that_fails_again_and_again_is_given_up_in_words(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as launcher:
        service = Service(launcher)
        while launcher.process.poll() is None:
            try:
                os.kill(service.child("tritonserver"), signal.SIGKILL)  # before it can serve
            except (AssertionError, OSError):
                time.sleep(0.05)
        assert launcher.end() == Exit.CHILD_DIED
        assert "Triton failed 6 times within 10 minutes" in launcher.said
