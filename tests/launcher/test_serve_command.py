"""`python -m launcher` as a user meets it: what it says, what it serves, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from launched import PROJECT, WAIT_S, launched
from running_service import RunningService
from servers import is_alive
from stand_in_build import describe_again

from bench.usage import descendants
from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.contract import DECODER_MODEL
from launcher.cli import Exit, curl_line


def wait_until(fact: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.triton
def test_the_printed_curl_line_gets_an_answer_and_sigterm_ends_everything(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as launcher:
        launcher.wait_for("Ctrl-C ends the service.")
        line = next(line for line in launcher.lines if line.startswith("printf"))
        answer = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=WAIT_S)
        assert json.loads(answer.stdout)["success"] is True
        processes = descendants(launcher.process.pid)
        assert len(processes) >= 5  # tritonserver, two stubs, gunicorn and its worker
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0
        assert not [pid for pid in processes if is_alive(pid)]
        log = re.search(r"log to (\S+)", launcher.said)
        assert log and not Path(log[1]).exists()


@pytest.mark.triton
def test_an_answer_in_flight_is_finished_when_the_service_ends(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build), GLM_GATEWAY_WORKERS="1") as launcher:
        launcher.wait_for("Ctrl-C ends the service.")
        line = next(line for line in launcher.lines if line.startswith("printf"))
        asking = subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE)  # 512 tokens: some seconds
        wait_until(RunningService(launcher).is_answering)
        launcher.process.send_signal(signal.SIGTERM)
        answer, _ = asking.communicate(timeout=WAIT_S)
        assert json.loads(answer)["usage"]["completion_tokens"] == 512
        assert launcher.end() == 0, launcher.said


@pytest.mark.triton
def test_a_killed_launcher_takes_everything_with_it(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build)) as launcher:
        launcher.wait_for("Ctrl-C ends the service.")
        processes = descendants(launcher.process.pid)
        launcher.process.kill()
        wait_until(lambda: not [pid for pid in processes if is_alive(pid)])


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with launched(TRITON_GRPC_PORT=port, BUILD=str(tmp_path)) as launcher:
            assert launcher.end() == Exit.UNUSABLE_PORT
    assert launcher.said == (
        f"Port {port} of 127.0.0.1 is taken: another program listens there. "
        "End that program, or choose another port with TRITON_GRPC_PORT=.\n"
    )


def test_an_address_that_is_not_this_machines_is_named() -> None:
    with launched(HOST="192.0.2.1") as launcher:
        assert launcher.end() == Exit.UNUSABLE_PORT
    assert "HOST=192.0.2.1 is no IPv4 address of this machine: choose one that it has" in launcher.said


def test_a_precision_that_does_not_exist_is_refused_before_anything_else(tmp_path: Path) -> None:
    with launched(PRECISION="int7", BUILD=str(tmp_path), PORT="1") as launcher:
        assert launcher.end() == Exit.WRONG_COMMAND_LINE
    assert launcher.said == "int7 is no precision; choose auto, fp32, fp16, int8 or int4.\n"


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with launched(CHECKPOINT=str(tmp_path / "nowhere"), BUILD="") as launcher:
        assert launcher.end() == Exit.NO_BUILD
    assert "nowhere" in launcher.said and "CHECKPOINT" in launcher.said


def test_a_folder_that_is_no_build_is_named(tmp_path: Path) -> None:
    with launched(BUILD=str(tmp_path)) as launcher:
        assert launcher.end() == Exit.NO_BUILD
    assert str(tmp_path) in launcher.said


def test_a_build_that_nobody_vouches_for_is_refused(unverified_build: Path) -> None:
    with launched(BUILD=str(unverified_build)) as launcher:
        assert launcher.end() == Exit.UNVERIFIED
    assert "has no certificate" in launcher.said and "GLM_ENGINE_REQUIRE_CERTIFICATE=false" in launcher.said


@pytest.mark.triton
def test_told_so_it_is_served_with_a_loud_warning_and_says_that_it_is_not_verified(unverified_build: Path) -> None:
    with launched(BUILD=str(unverified_build), GLM_ENGINE_REQUIRE_CERTIFICATE="false") as launcher:
        launcher.wait_for("Ctrl-C ends the service.")
        assert "NOBODY VOUCHES FOR THE ANSWERS OF THIS BUILD" in launcher.said
        address = re.search(r"Ready: (\S+)", launcher.said)
        assert address
        with urllib.request.urlopen(f"{address[1]}/v1/models", timeout=WAIT_S) as reply:
            assert json.load(reply)["data"][0]["verified"] is False
        launcher.process.send_signal(signal.SIGTERM)
        assert launcher.end() == 0


@pytest.fixture
def unverified_build(stand_in_build: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(stand_in_build, tmp_path / "unverified"))
    (folder / "certificate.json").unlink()
    return folder


def test_wrong_settings_are_named_in_a_line_each_before_anything_starts(stand_in_build: Path) -> None:
    wrong = {
        "GLM_ENGINE_SLOTS": "0",
        "GLM_ENGINE_SLOT": "4",
        "GLM_GATEWAY_DEADLINE_S": "abc",
        "GLM_GATEWAY_BUILD": "/x",
    }
    with launched(BUILD=str(stand_in_build), **wrong) as launcher:
        assert launcher.end() == Exit.WRONG_SETTINGS
    assert launcher.said.splitlines() == [
        "Checking the settings ...",
        "GLM_GATEWAY_BUILD=/x: `make serve` sets this itself; use BUILD= instead.",
        "GLM_GATEWAY_DEADLINE_S=abc: must be a number.",
        "GLM_ENGINE_SLOT: unknown setting; did you mean GLM_ENGINE_SLOTS?",
        "GLM_ENGINE_SLOTS=0: must be at least 1.",
    ]


@pytest.mark.parametrize("name", ["GLM_GATEWAY_BIND", "GLM_GATEWAY_TRITON_URL"])
def test_what_would_be_overwritten_is_refused(name: str) -> None:
    with launched(**{name: "grpc://10.0.0.1:8001"}) as launcher:
        assert launcher.end() == Exit.WRONG_SETTINGS
    assert f"{name}=grpc://10.0.0.1:8001: `make serve` sets this itself" in launcher.said


def test_an_address_for_others_needs_keys(stand_in_build: Path) -> None:
    with launched(BUILD=str(stand_in_build), HOST="0.0.0.0") as launcher:
        assert launcher.end() == Exit.WRONG_SETTINGS
    assert "GLM_GATEWAY_BIND=0.0.0.0:" in launcher.said and "GLM_GATEWAY_KEYS_FILE" in launcher.said


@pytest.mark.triton
def test_where_a_key_is_needed_the_printed_line_carries_it(stand_in_build: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    made = [sys.executable, "-m", "gateway", "keys", "create", "me", "--file", file]
    key = subprocess.run(made, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout.strip()
    with launched(BUILD=str(stand_in_build), GLM_GATEWAY_KEYS_FILE=file, HOST="0.0.0.0") as launcher:
        launcher.wait_for("Ctrl-C ends the service.")
        assert "Try it with one of its keys in KEY:" in launcher.said
        line = next(line for line in launcher.lines if line.startswith("printf"))
        for chosen, success in ((key, True), ("another", False)):
            answer = subprocess.run(
                ["bash", "-c", line], env={**os.environ, "KEY": chosen}, capture_output=True, check=True, timeout=WAIT_S
            )
            assert json.loads(answer.stdout)["success"] is success


@pytest.mark.triton
def test_a_start_that_takes_too_long_names_the_variable(stand_in_build: Path, tmp_path: Path) -> None:
    slow = Path(shutil.copytree(stand_in_build, tmp_path / "build"))
    model = slow / REPOSITORY_FOLDER / DECODER_MODEL / "1" / "model.py"
    model.write_text(model.read_text("utf-8").replace("self.cancelled = 0", "time.sleep(20)", 1), "utf-8")
    describe_again(slow)
    with launched(BUILD=str(slow), START_TIMEOUT_S="1") as launcher:
        assert launcher.end() == Exit.TRITON_FAILED
    assert "was not ready within 1 s (START_TIMEOUT_S)." in launcher.said


def test_a_curl_line_survives_quotes_in_the_prompt(stand_in_build: Path) -> None:
    line = curl_line(stand_in_build, "http://x", False).split(" | curl")[0]
    body = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=WAIT_S).stdout
    assert json.loads(body)["prompt"] == 'What\'s in 100 % of "it"?'
