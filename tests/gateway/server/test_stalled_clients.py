"""Clients that stall: whoever sends its head too slowly or does not read its answer keeps no thread for good."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from eventually import eventually
from live_gateway import live_gateway

from glmserve.limits import ANSWER_GRACE_S

WAIT_S = 20
HEAD_S = 0.5
DEADLINE_S = 1.0
REQUEST = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def url(build: Path) -> Generator[str]:
    """A gateway with one thread, which whoever stalls has to himself."""
    with live_gateway(build, THREADS="1", BODY_TIMEOUT_S=str(HEAD_S), DEADLINE_S=str(DEADLINE_S)) as url:
        yield url


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(WAIT_S)
    client.connect((host, int(port)))
    return client


def answers(url: str, timeout_s: float) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=timeout_s) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_a_head_that_trickles_in_keeps_a_thread_for_a_bounded_time(url: str) -> None:
    with connected(url) as client:
        began = time.monotonic()
        with suppress(OSError):
            for i in range(len(REQUEST) - 1):
                client.sendall(REQUEST[i : i + 1])
                time.sleep(0.1)
        assert HEAD_S <= time.monotonic() - began < 0.1 * (len(REQUEST) - 1)  # it was hung up on before the end
        assert answers(url, WAIT_S)


def test_a_client_that_reads_nothing_keeps_a_thread_for_a_bounded_time(url: str) -> None:
    with connected(url) as client:
        client.settimeout(1)
        with suppress(OSError):  # until the server reads no more, since nothing of its answers is read
            while True:
                client.sendall(REQUEST * 100)
        assert eventually(lambda: not answers(url, 1), WAIT_S)
        assert eventually(lambda: answers(url, 1), HEAD_S + DEADLINE_S + ANSWER_GRACE_S + WAIT_S)
