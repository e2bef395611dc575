"""Programs as running processes: a gateway before a fake Triton, the baselines, and whatever else has a port."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from bench.checkpoints.builds import CACHE
from bench.ports import free_port
from bench.usage import cpu_s, peak_bytes
from launcher.children import Child
from launcher.probe import get

HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_STOP_AFTER_S = 5.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.05
_PROJECT = Path(__file__).resolve().parents[2]


class NotStarted(Exception):
    """A program of a measurement did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """One running program; `pid` is the process that does the work."""

    host: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def cpu_s(self) -> float:
        """As `bench.usage.cpu_s`."""
        return cpu_s(self.pid)

    def peak_memory_mb(self) -> float:
        """Most memory that was resident at any time, in MB."""
        return peak_bytes(self.pid) / 1e6


def engine_variables(threads: int) -> dict[str, str]:
    """The engine's settings in a measurement: the defaults, except for the threads, and that it serves builds of random
    weights, which have no certificate."""
    return {
        "GLM_ENGINE_THREADS": str(threads),
        "GLM_ENGINE_VISION_THREADS": str(threads),
        "GLM_ENGINE_REQUIRE_CERTIFICATE": "false",
    }


@contextmanager
def flask_baseline(checkpoint: Path, threads: int) -> Iterator[str]:
    """The address of transformers in a Flask script, once it answers."""
    module = "bench.baselines.flask_transformers"
    with _module(module, "/health/ready", checkpoint=checkpoint, threads=threads) as server:
        yield server.url


def fastapi_baseline(build: Path, triton_port: int) -> AbstractContextManager[Server]:
    """FastAPI and uvicorn with as little code as serves a build, in front of a Triton."""
    return _module("bench.baselines.fastapi_gateway", "/health/live", build=build, triton_port=triton_port)


@contextmanager
def fake_triton(beat_ms: float) -> Iterator[int]:
    """The port of a fake Triton whose tokens come at this beat."""
    with _module("bench.servers.fake_triton", beat_ms=beat_ms) as server:
        yield server.port


@contextmanager
def gateway_before(build: Path, triton_port: int, threads: int = 64) -> Iterator[Server]:
    """Our gateway with one worker of so many threads, and otherwise with its defaults."""
    port = free_port()
    variables = {
        "GLM_GATEWAY_BUILD": str(build),
        "GLM_GATEWAY_TRITON_URL": f"grpc://{HOST}:{triton_port}",
        "GLM_GATEWAY_BIND": f"{HOST}:{port}",
        "GLM_GATEWAY_WORKERS": "1",
        "GLM_GATEWAY_THREADS": str(threads),
        "GLM_GATEWAY_EXEMPT_LOOPBACK": "true",
        "GLM_GATEWAY_ADMISSION_TOKENS": str(10**9),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config"]
    with program(command, port, CACHE / "gateway.log", "/health/live", variables) as server:
        worker = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text("utf-8").split()[0]
        yield Server(HOST, port, int(worker))


def _module(name: str, path: str = "", **options: object) -> AbstractContextManager[Server]:
    """One of our own programs with its options, one of which is a free port."""
    port = free_port()
    command = [sys.executable, "-m", name]
    for option, value in (options | {"port": port}).items():
        command += [f"--{option.replace('_', '-')}", str(value)]
    variables = {"OMP_NUM_THREADS": str(options["threads"])} if "threads" in options else {}
    return program(command, port, CACHE / f"{name.rpartition('.')[2]}.log", path, variables)


@contextmanager
def program(
    command: list[str],
    port: int,
    log: Path,
    path: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
    start_timeout_s: float = _START_TIMEOUT_S,
) -> Iterator[Server]:
    """A process until the block ends, with these variables added to ours. It is up once a GET of `path` is answered
    with 200, or, without a path, once it listens; raises NotStarted where that takes too long."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = Child(log.stem, command, {**os.environ, **variables}, _PROJECT, output)
        try:
            give_up = time.monotonic() + start_timeout_s
            while not _is_up(port, path):
                if child.exit_code() is not None or time.monotonic() > give_up:
                    raise NotStarted(f"{log.stem} did not start. {log} ends:\n{log.read_text('utf-8')[-2000:]}")
                time.sleep(_POLL_S)
            yield Server(HOST, port, child.pid)
        finally:
            child.stop(_STOP_AFTER_S)


def _is_up(port: int, path: str) -> bool:
    if path:
        reply = get(HOST, port, path, _PROBE_TIMEOUT_S)
        return reply is not None and reply.status == HTTPStatus.OK
    try:
        with socket.create_connection((HOST, port), _PROBE_TIMEOUT_S):
            return True
    except ConnectionRefusedError:
        return False
