"""The programs of a measurement as running processes: our service, the baselines, and a gateway before a fake
Triton."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench.checkpoints.builds import CACHE
from bench.servers.ports import free_port
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.children import Child
from launcher.gateway_server import GatewayServer
from launcher.probe import get
from launcher.triton_server import TritonServer

HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_STOP_AFTER_S = 5.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PROJECT = Path(__file__).resolve().parents[2]
_PATIENT = {  # a measurement on a busy machine must be slow, not failed
    "GLM_GATEWAY_EXEMPT_LOOPBACK": "true",
    "GLM_GATEWAY_DEADLINE_S": "600",
    "GLM_GATEWAY_RESPONSE_TIMEOUT_S": "120",
    "GLM_GATEWAY_CANARY_TIMEOUT_S": "120",
}
_NOTHING: Mapping[str, str] = MappingProxyType({})


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
        """Seconds of processor time since it started, all threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def peak_memory_mb(self) -> float:
        """Most memory that was resident at any time, in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def engine_environment(threads: int) -> dict[str, str]:
    """The engine's settings in a measurement: the defaults, except for the threads, and that it serves builds of random
    weights, which have no certificate."""
    number = str(threads)
    return {
        "GLM_ENGINE_THREADS": number,
        "GLM_ENGINE_VISION_THREADS": number,
        "GLM_ENGINE_REQUIRE_CERTIFICATE": "false",
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
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
    triton = TritonServer(build / REPOSITORY_FOLDER, *ports, HOST, _START_TIMEOUT_S, require_certificate=False)
    with (CACHE / f"gateway-{build.name}.log").open("wb") as log:
        gateway = GatewayServer(build, triton.grpc_url, HOST, free_port(), log)
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
def flask_baseline(checkpoint: Path, threads: int) -> Iterator[str]:
    """The address of transformers in a Flask script, once it answers."""
    module = ["bench.baselines.flask_transformers", "--checkpoint", str(checkpoint), "--threads", str(threads)]
    with _program("flask_transformers", module, "/health/ready", {"OMP_NUM_THREADS": str(threads)}) as server:
        yield server.url


@contextmanager
def fastapi_baseline(build: Path, triton_port: int) -> Iterator[Server]:
    """FastAPI and uvicorn with as little code as serves a build, in front of a Triton."""
    module = ["bench.baselines.fastapi_gateway", "--build", str(build), "--triton-port", str(triton_port)]
    with _program("fastapi_gateway", module, "/health/live") as server:
        yield server


@contextmanager
def fake_triton(beat_ms: float) -> Iterator[int]:
    """The port of a fake Triton whose tokens come at this beat."""
    with _program("fake_triton", ["bench.servers.fake_triton", "--beat-ms", str(beat_ms)]) as server:
        yield server.port


@contextmanager
def gateway_before(build: Path, triton_port: int, threads: int) -> Iterator[Server]:
    """Our gateway with one worker of so many threads, and otherwise with its defaults."""
    port = free_port()
    chosen = {
        "BUILD": str(build),
        "TRITON_URL": f"grpc://{HOST}:{triton_port}",
        "BIND": f"{HOST}:{port}",
        "WORKERS": "1",
        "THREADS": str(threads),
        "EXEMPT_LOOPBACK": "true",
        "ADMISSION_TOKENS": str(10**9),
    }
    variables = {f"GLM_GATEWAY_{name}": value for name, value in chosen.items()}
    module = ["gunicorn", "-c", "python:gateway.server.gunicorn_config"]
    with _program("gateway", module, "/health/live", variables, port) as server:
        worker = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text("utf-8").split()[0]
        yield Server(HOST, port, int(worker))


@contextmanager
def _program(
    name: str, module: Sequence[str], path: str = "", variables: Mapping[str, str] = _NOTHING, port: int = 0
) -> Iterator[Server]:
    """A Python module as a process until the block ends, with these variables added to ours; its output goes to a log.

    It is told a free port with --port, unless `port` says which one it uses. It is up once a GET of `path` is answered,
    or, without a path, once it listens.
    """
    command = [sys.executable, "-m", *module]
    if not port:
        port = free_port()
        command += ["--port", str(port)]
    CACHE.mkdir(parents=True, exist_ok=True)
    path_of_log = CACHE / f"{name}.log"
    with path_of_log.open("wb") as log:
        child = Child(name, command, {**os.environ, **variables}, _PROJECT, log)
        try:
            wait_until_up(child, port, path, path_of_log, _START_TIMEOUT_S)
            yield Server(HOST, port, child.pid)
        finally:
            child.stop(_STOP_AFTER_S)


def wait_until_up(child: Child, port: int, path: str, log: Path, timeout_s: float) -> None:
    """Returns once a GET of `path` is answered, or, without a path, once `child` listens; raises NotStarted when the
    process ends or takes longer."""
    is_up: Callable[[], bool] = (lambda: _answers(port, path)) if path else (lambda: _listens(port))
    give_up = time.monotonic() + timeout_s
    while not is_up():
        if child.exit_code() is not None or time.monotonic() > give_up:
            raise NotStarted(f"{child.name} did not start. Its log, {log}, ends:\n{log.read_text('utf-8')[-2000:]}")
        time.sleep(_POLL_S)


def _answers(port: int, path: str) -> bool:
    return get(HOST, port, path, _PROBE_TIMEOUT_S) is not None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), _PROBE_TIMEOUT_S):
            return True
    except ConnectionRefusedError:
        return False
