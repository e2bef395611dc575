"""Our gateway and its rival, each one process in front of a stand-in for Triton, and what they use of the machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers.ports import free_port
from bench.servers.processes import log_of, program, wait_until, wait_until_it_answers

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


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
    with program(
        "paced_triton", ["bench.servers.fake_triton", "--port", str(port), "--beat-ms", str(beat_ms)], {}
    ) as child:
        wait_until(child, lambda: _listens(port), log_of("paced_triton"), _START_TIMEOUT_S)
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
    with program("gateway", ["gunicorn", "-c", "python:gateway.server.gunicorn_config"], variables) as child:
        wait_until_it_answers(child, port, "/health/live", log_of("gateway"), _START_TIMEOUT_S)
        master = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        yield Server(_HOST, port, int(master.read_text("utf-8").split()[0]))


@contextmanager
def passthrough_before(build: Path, triton_port: int) -> Iterator[Server]:
    """The rival: FastAPI and uvicorn with the least that works."""
    port = free_port()
    command = [
        "bench.baselines.fastapi_gateway",
        "--build",
        str(build),
        "--port",
        str(port),
        "--triton-port",
        str(triton_port),
    ]
    with program("passthrough", command, {}) as child:
        wait_until_it_answers(child, port, "/health/live", log_of("passthrough"), _START_TIMEOUT_S)
        yield Server(_HOST, port, child.pid)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), _START_TIMEOUT_S):
            return True
    except ConnectionRefusedError:
        return False
