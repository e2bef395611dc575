"""Runs the echoing gateway under its real web server, for as long as a test needs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ports import free_port

WAIT_S = 20
ROOT = Path(__file__).resolve().parents[2]
ECHO = "echo_gateway:application()"
REAL = "gateway.wsgi:application()"
"""The gateway as it is served, with whatever Triton its settings name."""


@dataclass(frozen=True)
class RunningGateway:
    """Where it answers, and its master process."""

    url: str
    pid: int


@contextmanager
def live_gateway(build: Path, **settings: str) -> Iterator[str]:
    """Its URL, once it is alive."""
    with running_gateway(build, **settings) as gateway:
        yield gateway.url


@contextmanager
def running_gateway(
    build: Path, application: str = ECHO, open_files: int | None = None, **settings: str
) -> Iterator[RunningGateway]:
    """The same with its process and a limit of open files; told to end with the block, unless it has ended."""
    port = free_port()
    chosen = {"BUILD": str(build), "BIND": f"127.0.0.1:{port}", "THREADS": "16", "WORKERS": "1"}
    chosen |= {"EXEMPT_LOOPBACK": "true", **settings}
    limit = [] if open_files is None else ["prlimit", f"--nofile={open_files}"]
    command = [*limit, sys.executable, "-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config", application]
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            **{f"GLM_GATEWAY_{name}": value for name, value in chosen.items()},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}",
        },
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + WAIT_S
        while not _is_alive(port):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        yield RunningGateway(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)


def gauge(url: str, name: str) -> int:
    """What a running gateway's metrics say of `glm_gateway_<name>`; 0 before it was ever set."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        found = re.search(rf"^glm_gateway_{name} (\S+)$", reply.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def _is_alive(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
