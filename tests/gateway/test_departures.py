"""Under the real web server: a client that leaves frees its place, at whatever moment it does so."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from live_gateway import live_gateway

WAIT_S = 10


@pytest.fixture(scope="module")
def url(build: Path) -> Generator[str]:
    with live_gateway(build) as url:
        yield url


def running(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=WAIT_S) as reply:
        found = re.search(r"^glm_gateway_running_requests (\S+)$", reply.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def eventually(happened: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def sent(url: str, **options: Any) -> socket.socket:
    """A connection that has asked for an answer of four seconds."""
    host, port = url.removeprefix("http://").split(":")
    said = f"Say [[{'word ' * 400}]]"
    body = json.dumps({"messages": [{"role": "user", "content": said}], "max_tokens": 2000, **options}).encode()
    connection = socket.create_connection((host, int(port)), WAIT_S)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_frees_its_place_at_once(url: str, is_stream: bool) -> None:
    connection = sent(url, stream=is_stream)
    assert eventually(lambda: running(url) == 1)
    left_at = time.monotonic()
    connection.close()
    assert eventually(lambda: running(url) == 0)
    assert time.monotonic() - left_at < 1


def test_many_clients_that_leave_at_any_moment_leave_nothing_behind(url: str) -> None:
    for i in range(24):
        connection = sent(url, stream=i % 2 == 0)
        time.sleep(i * 0.002)
        connection.close()
    assert eventually(lambda: running(url) == 0)
