"""A worker with few file descriptors refuses what it cannot serve, and lives."""

from __future__ import annotations

import http.client
import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from eventually import eventually
from live_gateway import running_gateway

WAIT_S = 30
CLIENTS, ROUNDS = 100, 4
pytestmark = pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")


def workers(master: int) -> list[str]:
    return Path(f"/proc/{master}/task/{master}/children").read_text().split()


def asked(url: str, image: str) -> tuple[int, bool]:
    """The status, and whether it says when to come back."""
    body = json.dumps({"prompt": "A long answer, please", "image": image})
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=WAIT_S)) as connection:
        with suppress(BrokenPipeError):  # the refusal may come before all was sent
            connection.request("POST", "/v1/chat/vision", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert json.loads(response.read())
        return response.status, response.headers.get("Retry-After") is not None


def test_with_64_open_files_a_crowd_is_refused_in_part_and_the_worker_lives(build: Path, image: str) -> None:
    with running_gateway(build, open_files=64, THREADS="64") as gateway, ThreadPoolExecutor(CLIENTS) as pool:
        before = workers(gateway.pid)
        replies = list(pool.map(lambda _: asked(gateway.url, image), range(CLIENTS * ROUNDS)))
        assert workers(gateway.pid) == before
        how = Counter(status for status, _ in replies)
        assert set(how) == {200, 503}
        assert all(has_time == (status == 503) for status, has_time in replies)
        assert eventually(lambda: asked(gateway.url, image)[0] == 200)  # the last connections are closed a moment later
        assert [asked(gateway.url, image)[0] for _ in range(5)] == [200] * 5
