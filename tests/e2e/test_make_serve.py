"""`make serve`, as a new user types it: ready in time, an answer to the line it prints, and a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bench.ports import free_port

pytestmark = pytest.mark.triton
ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 15


@pytest.mark.alone
def test_make_serve_answers_within_15_seconds_and_ends_on_ctrl_c() -> None:
    subprocess.run(["make", "export"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    names = ("PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
    command = ["make", "serve", *(f"{name}={free_port()}" for name in names)]
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = ""
        for line in process.stdout:
            if line.startswith("printf "):
                break
        took_s = time.monotonic() - began
        answer = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(answer.stdout)["success"] is True
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does in a terminal
        said, _ = process.communicate(timeout=60)
        assert re.search(r"^Ended\.$", said, re.MULTILINE)
        assert took_s <= READY_WITHIN_S
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_port_in_use_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            ["env", "--default-signal=INT", "make", "serve", f"PORT={port}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert f"Port {port}" in done.stdout + done.stderr and "PORT=" in done.stdout + done.stderr
