"""Our gateway and its rival, each one process in front of a stand-in for Triton, and what they use of the machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.builds import CACHE
from launcher.children import Child
from launcher.ports import free_port
from launcher.probe import get

_HOST = "127.0.0.1"
_PROJECT = Path(__file__).resolve().parents[1]
_START_TIMEOUT_S = 60.0
_STOP_AFTER_S = 5.0
_POLL_S = 0.1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


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


@contextmanager
def paced_triton(beat_ms: float) -> Iterator[int]:
    """The port of a stand-in for Triton whose answers come at this beat."""
    port = free_port()
    with _running("paced_triton", ["bench.paced_triton", "--port", str(port), "--beat-ms", str(beat_ms)], {}):
        yield port


@contextmanager
def gateway_before(build: Path, triton_port: int, threads: int) -> Iterator[Server]:
    """Our gateway with one worker of so many threads, and otherwise with its defaults."""
    port = free_port()
    chosen = {
        "BUILD": str(build),
        "TRITON_URL": f"grpc://{_HOST}:{triton_port}",
        "BIND": f"{_HOST}:{port}",
        "WORKERS": "1",
        "THREADS": str(threads),
        "ADMISSION_TOKENS": str(10**9),
    }
    variables = {f"GLM_GATEWAY_{name}": value for name, value in chosen.items()}
    with _running("gateway", ["gunicorn", "-c", "python:gateway.gunicorn_config"], variables) as child:
        _wait_for(child, port, "gateway")
        master = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        yield Server(_HOST, port, int(master.read_text("utf-8").split()[0]))


@contextmanager
def passthrough_before(build: Path, triton_port: int) -> Iterator[Server]:
    """The rival: FastAPI and uvicorn with the least that works."""
    port = free_port()
    command = ["bench.passthrough", "--build", str(build), "--port", str(port), "--triton-port", str(triton_port)]
    with _running("passthrough", command, {}) as child:
        _wait_for(child, port, "passthrough")
        yield Server(_HOST, port, child.pid)


@contextmanager
def _running(name: str, module: list[str], variables: dict[str, str]) -> Iterator[Child]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with _log_of(name).open("wb") as log:
        child = Child(name, [sys.executable, "-m", *module], {**os.environ, **variables}, _PROJECT, log)
        try:
            yield child
        finally:
            child.stop(_STOP_AFTER_S)


def _wait_for(child: Child, port: int, name: str) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while get(_HOST, port, "/health/live", 1.0) is None:
        if child.exit_code() is not None or time.monotonic() > give_up:
            raise NotStarted(f"{name} did not start. Its log ends:\n{_log_of(name).read_text('utf-8')[-2000:]}")
        time.sleep(_POLL_S)


def _log_of(name: str) -> Path:
    return CACHE / f"{name}.log"
