"""The two sides as running processes: the rival's script, and Triton with our gateway before it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.checkpoints.builds import CACHE
from bench.servers.ports import free_port
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.children import Child
from launcher.gateway_server import GatewayServer
from launcher.probe import get
from launcher.triton_server import TritonServer

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_STOP_AFTER_S = 5.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.05
_PROJECT = Path(__file__).resolve().parents[2]
_PATIENT = {  # a measurement on a busy machine must be slow, not failed
    "GLM_GATEWAY_DEADLINE_S": "600",
    "GLM_GATEWAY_RESPONSE_TIMEOUT_S": "120",
    "GLM_GATEWAY_CANARY_TIMEOUT_S": "120",
}


class NotStarted(Exception):
    """A program of a measurement did not start; the message holds the end of its log."""


def engine_environment(threads: int) -> dict[str, str]:
    """The engine's settings in a measurement: its defaults, but for the threads, and builds of random weights, which
    nobody vouches for, are run."""
    number = str(threads)
    return {
        "GLM_ENGINE_THREADS": number,
        "GLM_ENGINE_VISION_THREADS": number,
        "GLM_ENGINE_REQUIRE_CERTIFICATE": "false",
    }


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Our environment with these variables, for as long as it takes to start something that reads them."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def service_on(build: Path, threads: int) -> Iterator[str]:
    """The address of our service, Triton and the gateway on free ports, once it answers."""
    ports = free_port(), free_port(), free_port()
    triton = TritonServer(build / REPOSITORY_FOLDER, *ports, _HOST, _START_TIMEOUT_S, require_certificate=False)
    with (CACHE / f"gateway-{build.name}.log").open("wb") as log:
        gateway = GatewayServer(build, triton.grpc_url, _HOST, free_port(), log)
        try:
            with environment(engine_environment(threads) | _PATIENT):
                triton.start()
                gateway.start()
            triton.wait_ready(_START_TIMEOUT_S)
            gateway.wait_ready(_START_TIMEOUT_S)
            yield gateway.url
        finally:
            gateway.stop()
            triton.stop()


@contextmanager
def rival_on(checkpoint: Path, threads: int) -> Iterator[str]:
    """The rival's address, once it answers."""
    port = free_port()
    command = [
        "bench.baselines.flask_transformers",
        "--checkpoint",
        str(checkpoint),
        "--port",
        str(port),
        "--threads",
        str(threads),
    ]
    with program("rival", command, {"OMP_NUM_THREADS": str(threads)}) as child:
        wait_until_it_answers(child, port, "/health/ready", log_of("rival"), _START_TIMEOUT_S)
        yield f"http://{_HOST}:{port}"


@contextmanager
def program(name: str, module: list[str], variables: dict[str, str]) -> Iterator[Child]:
    """A Python module as a process, with these variables beside ours, until the block ends; it logs to `log_of`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with log_of(name).open("wb") as log:
        child = Child(name, [sys.executable, "-m", *module], {**os.environ, **variables}, _PROJECT, log)
        try:
            yield child
        finally:
            child.stop(_STOP_AFTER_S)


def log_of(name: str) -> Path:
    return CACHE / f"{name}.log"


def wait_until_it_answers(child: Child, port: int, path: str, log: Path, timeout_s: float) -> None:
    """Returns once a GET of `path` is a 200; raises NotStarted when the process ends or takes longer."""
    wait_until(child, lambda: get(_HOST, port, path, _PROBE_TIMEOUT_S) is not None, log, timeout_s)


def wait_until(child: Child, is_up: Callable[[], bool], log: Path, timeout_s: float) -> None:
    """Returns once `is_up` says so; raises NotStarted when the process ends or takes longer."""
    give_up = time.monotonic() + timeout_s
    while not is_up():
        if child.exit_code() is not None or time.monotonic() > give_up:
            raise NotStarted(f"{child.name} did not start. Its log, {log}, ends:\n{log.read_text('utf-8')[-2000:]}")
        time.sleep(_POLL_S)
