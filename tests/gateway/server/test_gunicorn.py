"""The gateway under its real web server: bodies as sockets bring them, and an orderly end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bench.ports import free_port

WAIT_S = 20
MAX_BODY = 100_000
URL = "/v1/chat/vision"


@pytest.fixture(scope="module")
def port(build: Path) -> Generator[int]:
    """A gateway process whose Triton does not exist."""
    port = free_port()
    settings = {
        "BUILD": str(build),
        "BIND": f"127.0.0.1:{port}",
        "TRITON_URL": "grpc://127.0.0.1:1",
        "MAX_BODY_BYTES": str(MAX_BODY),
        "BODY_TIMEOUT_S": "0.5",
        "THREADS": "4",
        "EXEMPT_LOOPBACK": "true",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config"],
        env={**os.environ, **{f"GLM_GATEWAY_{name}": value for name, value in settings.items()}},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
    )
    give_up = time.monotonic() + WAIT_S
    while not answers(port):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.05)
    yield port
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/health/live", None)[0] == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: bytes | Iterator[bytes] | None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body, encode_chunked=isinstance(body, Iterator), headers=headers_of(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def headers_of(body: object) -> dict[str, str]:
    sent = {"Content-Type": "application/json"}
    return sent | {"Transfer-Encoding": "chunked"} if isinstance(body, Iterator) else sent


def raw(port: int, data: bytes) -> bytes:
    """What comes back to exactly these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def question(image: str) -> bytes:
    return json.dumps({"image": image, "prompt": "What is it?"}).encode()


def test_a_body_in_chunks_is_read_like_any_other(port: int, image: str) -> None:
    body = question(image)
    status, values = ask(port, "POST", URL, iter([body[:50], body[50:]]))
    assert (status, values["error"]) == (503, "The model cannot be reached at the moment; please try again.")


@pytest.mark.parametrize("size", [MAX_BODY + 1, MAX_BODY * 3])
def test_a_client_that_sends_too_much_reads_its_413(port: int, size: int) -> None:
    assert ask(port, "POST", URL, b"A" * size)[0] == 413
    assert ask(port, "POST", URL, iter([b"A" * 1000] * (size // 1000 + 1)))[0] == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 500\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nbroken\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n10\r\nshort",
    ],
)
def test_a_body_that_never_arrives_whole_is_a_400_in_bounded_time(port: int, sent: bytes) -> None:
    started = time.monotonic()
    reply = raw(
        port,
        b"POST /v1/chat/vision HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n" + sent,
    )
    assert reply.startswith(b"HTTP/1.1 400")
    assert b"did not arrive whole" in reply
    assert time.monotonic() - started < 3


def test_a_body_that_trickles_in_is_a_400_when_its_time_is_up(port: int) -> None:
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as connection:
        connection.sendall(
            b"POST /v1/chat/vision HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 5000\r\n\r\n{"
        )
        reply = b""
        while not reply and time.monotonic() - started < WAIT_S:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                reply = connection.recv(65_536)
    assert reply.startswith(b"HTTP/1.1 400")
    assert 0.4 < time.monotonic() - started < 3


def test_clients_that_never_close_keep_nobody_waiting(port: int) -> None:
    with ExitStack() as crowd:
        for _ in range(3):
            lingering = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S))
            lingering.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert lingering.recv(65_536).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert ask(port, "GET", "/health/live", None)[0] == 200
        assert time.monotonic() - started < 1


def test_not_ready_without_triton_but_alive(port: int) -> None:
    assert ask(port, "GET", "/health/ready", None)[0] == 503
    assert ask(port, "GET", "/health/live", None)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ],
)
def test_what_gunicorn_refuses_is_answered_in_json(port: int, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        with suppress(OSError):
            connection.sendall(sent)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        body = json.loads(reply.read())
    assert reply.status == status and reply.getheader("Content-Type") == "application/json"
    assert set(body) == {"error", "success", "request_id"} and body["success"] is False
    assert body["request_id"] == reply.getheader("X-Request-ID")
    assert "nonsense" not in body["error"] and body["error"].endswith(".")


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "X-Forwarded-Proto", "X-Forwarded-Prefix"])
def test_no_header_moves_the_service_elsewhere(port: int, name: str) -> None:
    head = f"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: /health\r\n\r\n"
    reply = raw(port, head.encode())
    assert reply.startswith(b"HTTP/1.1 200"), reply
