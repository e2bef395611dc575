"""A disk that is full loses log lines, which are counted, and nothing else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import ask

from gateway.app import create_app
from gateway.observability.line_writer import LineWriter
from gateway.settings import GatewaySettings

FULL = Path("/dev/full")


def scraped(client: FlaskClient) -> str:
    return client.get("/metrics").get_data(as_text=True)


def test_answers_go_on_and_everything_is_counted_while_the_audit_log_is_full(
    build: Path, backend: FakeBackend, image: str
) -> None:
    client = create_app(GatewaySettings(build=build, audit_file=FULL), backend).test_client()
    assert [ask(client, image).status_code for _ in range(3)] == [200] * 3
    page = scraped(client)
    assert 'glm_gateway_requests_total{route="/v1/chat/vision",status="200"} 3.0' in page
    assert "glm_gateway_running_requests 0.0" in page
    assert 'glm_gateway_lost_log_lines_total{log="audit"} 3.0' in page


def test_lines_that_standard_output_lost_are_counted_also_those_from_before(
    build: Path, backend: FakeBackend, image: str
) -> None:
    full = os.open(FULL, os.O_WRONLY)
    try:
        lines = LineWriter(full)
        lines.write("at the start\n")
        client = create_app(GatewaySettings(build=build), backend, lines).test_client()
        lines.write("later\n")
        assert ask(client, image).status_code == 200
        assert 'glm_gateway_lost_log_lines_total{log="stdout"} 2.0' in scraped(client)
    finally:
        os.close(full)


def test_after_a_line_that_was_cut_off_the_next_one_stands_by_itself(tmp_path: Path) -> None:
    """The limit is in the child only: it may write 20 bytes, then more again."""
    program = (
        "import os, resource, signal, sys\n"
        "from gateway.observability.line_writer import LineWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "lost = []\n"
        "lines = LineWriter(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))\n"
        "lines.report_to(lost.append)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))\n"
        "for word in ('first', 'second', 'third', 'fourth'): lines.write(word * 2 + '\\n')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "lines.write('fifth\\n')\n"
        "print(sum(lost))\n"
    )
    file = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    assert file.read_text() == "firstfirst\nsecondsec\nfifth\n"
    assert done.stdout == "3\n" or done.stdout == "3"


@pytest.mark.parametrize("stdout", ["/dev/full", "closed"])
def test_a_process_whose_standard_output_takes_nothing_logs_without_an_error(stdout: str) -> None:
    program = (
        "import structlog\n"
        "from gateway.observability import logging\n"
        "logging.configure()\n"
        "for _ in range(1000): structlog.get_logger().info('event', text='x' * 100)\n"
    )
    reader, writer = os.pipe()
    target = os.open(FULL, os.O_WRONLY) if stdout == "/dev/full" else writer
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=target, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(target)
    assert (done.returncode, done.stderr) == (0, b"")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
