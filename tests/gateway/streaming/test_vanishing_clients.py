"""Clients that vanish at every stage of a request: the place is free at once, and no thread or socket is left."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from eventually import eventually
from live_gateway import RunningGateway, gauge, running_gateway

WAIT_S = 10
AT_ONCE_S = 2.0
CROWD = 6  # clients that vanish together
THREADS = 12
LONG = f"Say [[{'word ' * 120}]]"  # three seconds of words
SILENT = "Hush"  # as long as a large image takes, without a word
ROOM = {"THREADS": str(THREADS), "ADMISSION_TOKENS": "8000", "MAX_WAITING": "16", "HEARTBEAT_S": "0.2"}
SMALL, LARGE = 600, 7000  # tokens of an answer: a crowd of small ones runs together, two large ones do not


@pytest.fixture(scope="module")
def gateway(build: Path) -> Generator[RunningGateway]:
    with running_gateway(build, **ROOM) as gateway:
        with ExitStack() as crowd:  # so many at once that every thread there can be is there
            for _ in range(THREADS):
                crowd.enter_context(connected(gateway, LONG, SMALL, False, share=0.5))
            assert eventually(lambda: held(gateway)[0] > THREADS)
        yield gateway


def connected(
    gateway: RunningGateway, prompt: str, max_tokens: int, is_stream: bool, share: float = 1.0
) -> socket.socket:
    """A client that has sent this share of its request's body."""
    asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "stream": is_stream}
    body = json.dumps(asked).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), WAIT_S)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[: int(len(body) * share)])
    return connection


def held(gateway: RunningGateway) -> tuple[int, int]:
    """Threads and open files of the worker process."""
    (worker,) = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    threads = re.search(r"^Threads:\s+(\d+)$", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
    assert threads
    return int(threads[1]), len(list(Path(f"/proc/{worker}/fd").iterdir()))


def leaves_nothing(gateway: RunningGateway, stage: Callable[[], None]) -> None:
    """Runs a stage twice: what the first time made for good is there by then, and nothing comes on top."""
    stage()
    before = held(gateway)
    stage()
    assert eventually(lambda: all(now <= then for now, then in zip(held(gateway), before, strict=True)))


def test_while_sending_the_body(gateway: RunningGateway) -> None:
    def stage() -> None:
        for connection in [connected(gateway, LONG, SMALL, False, share=0.5) for _ in range(CROWD)]:
            connection.close()
        assert eventually(lambda: answers(gateway), AT_ONCE_S)

    leaves_nothing(gateway, stage)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_while_waiting_in_line(gateway: RunningGateway, is_stream: bool) -> None:
    def stage() -> None:
        with connected(gateway, SILENT, LARGE, True):
            assert eventually(lambda: gauge(gateway.url, "running_requests") == 1)
            waiting = [connected(gateway, LONG, LARGE, is_stream) for _ in range(CROWD)]
            assert eventually(lambda: gauge(gateway.url, "waiting_requests") == CROWD)
            for connection in waiting:
                connection.close()
            assert eventually(lambda: gauge(gateway.url, "waiting_requests") == 0, AT_ONCE_S)
            assert gauge(gateway.url, "running_requests") == 1
        assert eventually(lambda: gauge(gateway.url, "running_requests") == 0, AT_ONCE_S)

    leaves_nothing(gateway, stage)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("prompt", [SILENT, LONG], ids=["while the picture is read", "in the middle of the answer"])
def test_while_it_is_answered(gateway: RunningGateway, prompt: str, is_stream: bool) -> None:
    def stage() -> None:
        with ExitStack() as crowd:
            for _ in range(CROWD):
                crowd.enter_context(connected(gateway, prompt, SMALL, is_stream))
            assert eventually(lambda: gauge(gateway.url, "running_requests") == CROWD)
        assert eventually(lambda: gauge(gateway.url, "running_requests") == 0, AT_ONCE_S)
        assert eventually(lambda: gauge(gateway.url, "admitted_tokens") == 0, AT_ONCE_S)

    leaves_nothing(gateway, stage)


def answers(gateway: RunningGateway) -> bool:
    with urllib.request.urlopen(f"{gateway.url}/health/live", timeout=WAIT_S) as reply:
        return bool(reply.status == 200)
