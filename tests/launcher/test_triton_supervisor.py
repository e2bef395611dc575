"""A Triton of which a part dies, stands still or breaks is back within 15 s, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from eventually import eventually
from servers import is_alive

from bench.ports import free_port
from bench.usage import descendants
from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.system.stopped import is_stopped
from launcher.supervision.restart_policy import RestartPolicy
from launcher.supervision.triton_supervisor import LONGEST_STEP_S, TritonSupervisor
from launcher.supervision.vital_signs import CONTINUE_AFTER_S, Pulse, PulseReader, cpu_s, stubs_of
from launcher.triton_server import TritonFailed, TritonServer

pytestmark = pytest.mark.triton
BACK_WITHIN_S = 15.0
GOES_ON_WITHIN_S = 5.0
LOAD_S = 60.0
LOOK_EVERY_S = 0.05


class Watched:
    """A supervisor, looked at until something is so."""

    def __init__(self, build: Path, most: int = 40) -> None:
        ports = free_port(), free_port(), free_port()
        self.said: list[str] = []
        self.supervisor = TritonSupervisor(
            lambda: TritonServer(build / REPOSITORY_FOLDER, *ports),
            self.said.append,
            LOAD_S,
            "START_TIMEOUT_S",
            step_timeout_s=60.0,
            policy=RestartPolicy(time.monotonic, most_in_all=most),
        )

    def until(self, fact: Callable[[], bool], within_s: float) -> float:
        """Seconds until it is so."""
        began = time.monotonic()
        while not fact():
            assert time.monotonic() - began < within_s, self.said
            self.supervisor.look()
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began

    def until_ready(self, within_s: float = LOAD_S) -> None:
        self.until(lambda: self.supervisor.is_ready, within_s)


@pytest.fixture
def watched(stand_in_build: Path) -> Iterator[Watched]:
    watched = Watched(stand_in_build)
    watched.supervisor.start()
    yield watched
    watched.supervisor.stop()


def _kill_stub(server: int) -> None:
    os.kill(min(stub.pid for stub in stubs_of(server)), signal.SIGKILL)


def _kill_other_stub(server: int) -> None:
    os.kill(max(stub.pid for stub in stubs_of(server)), signal.SIGKILL)


FAULTS: dict[str, Callable[[int], None]] = {
    "a model's process is killed": _kill_stub,
    "the other model's process is killed": _kill_other_stub,
    "tritonserver is killed": lambda server: os.kill(server, signal.SIGKILL),
    "tritonserver aborts": lambda server: os.kill(server, signal.SIGABRT),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_back_within_15_seconds_when(fault: str, watched: Watched) -> None:
    watched.until_ready()
    server = watched.supervisor.server
    assert server.pid is not None
    processes, folder, began = [server.pid, *descendants(server.pid)], server.log_path.parent, time.monotonic()
    FAULTS[fault](server.pid)
    watched.until(lambda: not watched.supervisor.is_ready, BACK_WITHIN_S)
    assert not folder.exists()
    watched.until_ready(BACK_WITHIN_S)
    assert time.monotonic() - began < BACK_WITHIN_S
    assert not [pid for pid in processes if is_alive(pid)]
    assert "Starting it again" in watched.said[-2]


STOPPED: dict[str, Callable[[int], int]] = {
    "a model's process": lambda server: min(stub.pid for stub in stubs_of(server)),
    "tritonserver": lambda server: server,
}


@pytest.mark.parametrize("victim", STOPPED)
def test_what_is_stopped_goes_on_within_seconds_and_nothing_is_started_again(victim: str, watched: Watched) -> None:
    watched.until_ready()
    server = watched.supervisor.server.pid
    assert server is not None
    pid, said = STOPPED[victim](server), len(watched.said)
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: is_stopped(pid))
    assert watched.until(lambda: not is_stopped(pid), GOES_ON_WITHIN_S) > CONTINUE_AFTER_S / 2
    watched.until(watched.supervisor.server.is_ready, GOES_ON_WITHIN_S)
    assert watched.supervisor.server.pid == server and watched.supervisor.is_ready
    assert len(watched.said) == said + 1 and "told to go on" in watched.said[-1]


@pytest.mark.parametrize("victim", STOPPED)
def test_it_is_back_within_15_seconds_when_somebody_stops_again_and_again(victim: str, watched: Watched) -> None:
    watched.until_ready()
    server = watched.supervisor.server
    assert server.pid is not None
    processes, folder, began = [server.pid, *descendants(server.pid)], server.log_path.parent, time.monotonic()
    pid = STOPPED[victim](server.pid)

    def is_given_up() -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return not watched.supervisor.is_ready

    watched.until(is_given_up, BACK_WITHIN_S)
    assert not folder.exists()
    watched.until_ready(BACK_WITHIN_S)
    assert time.monotonic() - began < BACK_WITHIN_S
    assert not [pid for pid in processes if is_alive(pid)]
    assert "Starting it again" in watched.said[-2]


def test_a_stop_of_three_seconds_is_survived(watched: Watched) -> None:
    watched.until_ready()
    pid = watched.supervisor.server.pid
    assert pid is not None
    stub = min(stub.pid for stub in stubs_of(pid))
    os.kill(stub, signal.SIGSTOP)
    began = time.monotonic()
    watched.until(lambda: time.monotonic() - began > 3, 5)
    os.kill(stub, signal.SIGCONT)
    watched.until(lambda: time.monotonic() - began > 5, 5)
    assert watched.supervisor.server.pid == pid and is_alive(stub)


def test_a_supervisor_that_stood_still_itself_blames_nobody(watched: Watched) -> None:
    watched.until_ready()
    pid = watched.supervisor.server.pid
    time.sleep(4)  # long enough to count as our own sleep
    watched.supervisor._pulse._answered_at -= 60  # type: ignore[union-attr]
    watched.supervisor.look()
    assert watched.supervisor.server.pid == pid and watched.supervisor.is_ready


class TurnedLongAgo(PulseReader):
    """Says that the engine is alive and its loop has not turned for so long."""

    def __init__(self, loop_age_s: float) -> None:
        self.loop_age_s = loop_age_s

    def silent_s(self) -> float:
        return 0.0

    def last(self) -> Pulse:
        return Pulse(True, 0.1, self.loop_age_s)


@pytest.mark.parametrize(
    ("command", "on_cpu", "age_s", "is_hung"),
    [
        ("yes > /dev/null", True, 3.0, False),
        ("yes > /dev/null", True, LONGEST_STEP_S, True),
        ("yes > /dev/null", False, 3.0, True),  # it waits for a GPU
        ("sleep 60", True, 3.0, True),
    ],
)
def test_a_step_that_keeps_the_processor_busy_is_slow_and_does_not_hang(
    command: str, on_cpu: bool, age_s: float, is_hung: bool
) -> None:
    supervisor = TritonSupervisor(
        lambda: TritonServer(Path(), 1, 2, 3),
        print,
        LOAD_S,
        "START_TIMEOUT_S",
        step_timeout_s=2.0,
        computes_on_cpu=on_cpu,
    )
    with subprocess.Popen(["bash", "-c", f"exec -a triton_python_backend_stub {command}"]) as process:
        try:
            assert eventually(lambda: any(stub.pid == process.pid for stub in stubs_of(os.getpid())))
            supervisor._stubs = {stub for stub in stubs_of(os.getpid()) if stub.pid == process.pid}
            supervisor._pulse = TurnedLongAgo(0.1)
            assert supervisor._pulse_fault() is None
            if "yes" in command:
                assert eventually(lambda: cpu_s(supervisor._stubs) > 1, within_s=60)
            supervisor._pulse.loop_age_s = age_s
            assert ("a step of the engine has taken" in (supervisor._pulse_fault() or "")) is is_hung
        finally:
            process.kill()


def test_a_server_that_fails_again_and_again_is_given_up_in_words(stand_in_build: Path) -> None:
    watched = Watched(stand_in_build, most=1)
    watched.supervisor.start()
    try:
        with pytest.raises(TritonFailed, match=r"Triton failed 2 times within 10 minutes.*Giving up"):
            for _ in range(2):
                watched.until_ready()
                assert watched.supervisor.server.pid
                os.kill(watched.supervisor.server.pid, signal.SIGKILL)
                watched.until(lambda: not watched.supervisor.is_ready, BACK_WITHIN_S)
    finally:
        watched.supervisor.stop()


def test_a_first_start_that_fails_is_not_tried_again(stand_in_build: Path, tmp_path: Path) -> None:
    build = shutil.copytree(stand_in_build, tmp_path / "build")
    model = build / REPOSITORY_FOLDER / "glm4v" / "1" / "model.py"
    model.write_text(model.read_text("utf-8") + "\n", "utf-8")
    watched = Watched(build)
    with pytest.raises(TritonFailed, match=r"model\.py of build \w+ was altered"):
        watched.supervisor.start()
    watched.supervisor.stop()


def test_byte_code_and_modules_beside_a_model_are_never_imported(stand_in_build: Path, tmp_path: Path) -> None:
    build = shutil.copytree(stand_in_build, tmp_path / "build")
    version = build / REPOSITORY_FOLDER / "glm4v" / "1"
    (version / "numpy.py").write_text("raise SystemExit('imported')", "utf-8")
    watched = Watched(build)
    watched.supervisor.start()
    try:
        watched.until_ready()
        assert not list(build.rglob("__pycache__"))
    finally:
        watched.supervisor.stop()


def test_two_services_on_the_same_ports_never_take_each_others_triton_for_their_own(stand_in_build: Path) -> None:
    first, ports = Watched(stand_in_build), None
    first.supervisor.start()
    try:
        first.until_ready()
        server = first.supervisor.server
        ports = server.http_port, free_port(), server.metrics_port
        second = TritonServer(stand_in_build / REPOSITORY_FOLDER, *ports)
        with second, pytest.raises(TritonFailed):
            second.wait_ready(LOAD_S)
        assert server.is_ready()
    finally:
        first.supervisor.stop()
