"""SIGTERM at every stage of a request: what runs finishes, what is new is refused, and the end has a bound."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from eventually import eventually
from live_gateway import RunningGateway, gauge, running_gateway

WAIT_S = 15
BOUND_S = 2
WORDS = "word " * 80  # two seconds of them
ROOM = {"ADMISSION_TOKENS": "3000", "HEARTBEAT_S": "0.1"}
LARGE = 2500  # tokens of an answer: one such request fills the room


@pytest.fixture
def gateway(build: Path) -> Generator[RunningGateway]:
    with running_gateway(build, **ROOM) as gateway:
        yield gateway


def request_of(prompt: str, is_stream: bool) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": LARGE, "stream": is_stream})
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )


def connected(gateway: RunningGateway) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), WAIT_S)


def sent(gateway: RunningGateway, prompt: str, is_stream: bool) -> socket.socket:
    connection = connected(gateway)
    connection.sendall(request_of(prompt, is_stream))
    return connection


def reply_on(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def refuses(gateway: RunningGateway) -> bool:
    try:
        connected(gateway).close()
    except ConnectionRefusedError:
        return True
    return False


def has_ended(gateway: RunningGateway) -> bool:
    return Path(f"/proc/{gateway.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_answers_under_way_and_in_line_finish_and_nobody_new_comes_in(gateway: RunningGateway) -> None:
    whole, stream = (sent(gateway, f"Say [[{WORDS}]]", is_stream) for is_stream in (False, True))
    assert eventually(
        lambda: gauge(gateway.url, "running_requests") == gauge(gateway.url, "waiting_requests") == 1, WAIT_S
    )
    os.kill(gateway.pid, signal.SIGTERM)
    assert eventually(lambda: refuses(gateway), WAIT_S)
    assert b'"finish_reason":"stop"' in reply_on(whole)
    assert b"data: [DONE]" in reply_on(stream)
    assert eventually(lambda: has_ended(gateway), WAIT_S)


def test_a_request_whose_body_is_still_coming_is_answered(gateway: RunningGateway) -> None:
    connection, request = connected(gateway), request_of("Say [[late]]", False)
    connection.sendall(request[:-20])
    assert gauge(gateway.url, "running_requests") == 0  # the server looked at what came before this
    os.kill(gateway.pid, signal.SIGTERM)
    assert eventually(lambda: refuses(gateway), WAIT_S)
    connection.sendall(request[-20:])
    assert b'"content":"late"' in reply_on(connection)
    assert eventually(lambda: has_ended(gateway), WAIT_S)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_what_takes_longer_than_the_bound_is_cut_off(build: Path, is_stream: bool) -> None:
    with running_gateway(build, GRACEFUL_TIMEOUT_S=str(BOUND_S)) as gateway:
        connection = sent(gateway, "Hush", is_stream)
        assert eventually(lambda: gauge(gateway.url, "running_requests") == 1, WAIT_S)
        began = time.monotonic()
        os.kill(gateway.pid, signal.SIGTERM)
        assert b"[DONE]" not in reply_on(connection)
        assert eventually(lambda: has_ended(gateway), WAIT_S)
        assert time.monotonic() - began < BOUND_S + 3
