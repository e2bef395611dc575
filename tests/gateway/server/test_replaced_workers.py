"""gunicorn replaces a worker that dies or stands still, and a gateway that was killed leaves nothing for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from eventually import eventually

from bench.ports import free_port
from launcher.supervision.vital_signs import children_of

WAIT_S = 60.0
REPLACED_WITHIN_S = 15.0


class Gateway:
    """A gateway process whose Triton does not exist."""

    def __init__(self, build: Path, temporary: Path, workers: int) -> None:
        self.port = free_port()
        settings = {
            "BUILD": str(build),
            "BIND": f"127.0.0.1:{self.port}",
            "TRITON_URL": "grpc://127.0.0.1:1",
            "WORKERS": str(workers),
            "THREADS": "4",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config"],
            env={**os.environ, "TMPDIR": str(temporary), **{f"GLM_GATEWAY_{name}": v for name, v in settings.items()}},
            cwd=Path(__file__).parents[3],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/live", timeout=1) as reply:
                return int(reply.status) == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        return sorted(children_of(self.process.pid))


@contextmanager
def running(build: Path, temporary: Path, workers: int) -> Iterator[Gateway]:
    gateway = Gateway(build, temporary, workers)
    try:
        assert eventually(gateway.answers, WAIT_S)
        yield gateway
    finally:
        gateway.process.terminate()
        gateway.process.wait(WAIT_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT])
def test_the_only_worker_is_replaced_within_15_seconds(build: Path, tmp_path: Path, number: signal.Signals) -> None:
    with running(build, tmp_path, 1) as gateway:
        (worker,) = gateway.workers()
        began = time.monotonic()
        os.kill(worker, number)
        assert eventually(lambda: worker not in gateway.workers(), REPLACED_WITHIN_S)
        assert eventually(gateway.answers, REPLACED_WITHIN_S)
        assert time.monotonic() - began < REPLACED_WITHIN_S


def test_the_metrics_of_a_gateway_go_with_it(build: Path, tmp_path: Path) -> None:
    with running(build, tmp_path, 2):
        assert len(list(tmp_path.glob("glm-metrics-*"))) == 1
    assert not list(tmp_path.glob("glm-metrics-*"))


def test_the_next_gateway_removes_the_metrics_of_one_that_was_killed(build: Path, tmp_path: Path) -> None:
    with running(build, tmp_path, 2) as killed:
        (left,) = tmp_path.glob("glm-metrics-*")
        killed.process.kill()
        killed.process.wait(WAIT_S)
        assert eventually(lambda: not killed.answers(), WAIT_S)
    with running(build, tmp_path, 2):
        assert not left.exists()
        assert len(list(tmp_path.glob("glm-metrics-*"))) == 1
