"""Under the real web server: a client that leaves frees its place, at whatever moment it does so."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from live_gateway import gauge, live_gateway

WAIT_S = 10


@pytest.fixture(scope="module")
def url(build: Path) -> Generator[str]:
    with live_gateway(build) as url:
        yield url


def sent(url: str, **options: Any) -> socket.socket:
    """A connection that has asked for an answer of four seconds."""
    host, port = url.removeprefix("http://").split(":")
    said = f"Say [[{'word ' * 400}]]"
    body = json.dumps({"messages": [{"role": "user", "content": said}], "max_tokens": 2000, **options}).encode()
    connection = socket.create_connection((host, int(port)), WAIT_S)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_frees_its_place_at_once(url: str, is_stream: bool) -> None:
    connection = sent(url, stream=is_stream)
    assert eventually(lambda: gauge(url, "running_requests") == 1)
    left_at = time.monotonic()
    connection.close()
    assert eventually(lambda: gauge(url, "running_requests") == 0)
    assert time.monotonic() - left_at < 1


def test_many_clients_that_leave_at_any_moment_leave_nothing_behind(url: str) -> None:
    for i in range(24):
        connection = sent(url, stream=i % 2 == 0)
        time.sleep(i * 0.002)
        connection.close()
    assert eventually(lambda: gauge(url, "running_requests") == 0)
