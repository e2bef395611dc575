"""Counts in a real Redis: shared while it answers, and no request's trouble when it is killed or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path
from statistics import median

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from limits.strategies import SlidingWindowCounterRateLimiter
from live_gateway import live_gateway
from samples import OPENAI_URL
from structlog.testing import capture_logs

from bench.ports import free_port
from gateway.app import create_app
from gateway.limits.rate_limit import RateLimitCounters
from gateway.limits.redis_storage import REDIS_TIMEOUT_S
from gateway.settings import GatewaySettings

FAR = "203.0.113.7"
WAIT_S = 15
CLIENTS = 6
BODY = b'{"messages": [{"role": "user", "content": "Hi"}]}'


class RedisServer:
    """A redis-server that keeps nothing; `start` brings back one that was killed."""

    def __init__(self, folder: Path) -> None:
        self._port, self._folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        assert eventually(self._answers, WAIT_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def flush(self) -> None:
        """Forgets every counter, as after a loss of its memory."""
        with socket.create_connection(("127.0.0.1", self._port), WAIT_S) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(64) == b"+OK\r\n"

    def counts(self) -> int:
        """How many counters it holds."""
        with socket.create_connection(("127.0.0.1", self._port), WAIT_S) as connection:
            connection.sendall(b"DBSIZE\r\n")
            return int(connection.recv(64).strip(b":\r\n"))


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def app_of(build: Path, backend: FakeBackend, url: str, limit: int) -> FlaskClient:
    return create_app(GatewaySettings(build=build, redis_url=url, requests_per_minute=limit), backend).test_client()


def code(client: FlaskClient) -> int:
    far = {"REMOTE_ADDR": FAR}
    return client.post(OPENAI_URL, data=BODY, content_type="application/json", environ_overrides=far).status_code


def test_workers_share_their_counts(build: Path, backend: FakeBackend, redis: RedisServer) -> None:
    one, two = (app_of(build, backend, redis.url, 2) for _ in range(2))
    assert [code(client) for client in (one, two, one, two)] == [200, 200, 429, 429]


def test_one_that_is_emptied_lets_in_one_more_window_and_then_counts_on(
    build: Path, backend: FakeBackend, redis: RedisServer
) -> None:
    clients = [app_of(build, backend, redis.url, 3) for _ in range(2)]
    codes = [code(clients[number % 2]) for number in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    redis.flush()
    assert [code(clients[number % 2]) for number in range(5)] == codes


def test_one_that_dies_is_replaced_by_memory(build: Path, backend: FakeBackend, redis: RedisServer) -> None:
    client = app_of(build, backend, redis.url, 2)
    assert code(client) == 200
    redis.kill()
    with capture_logs() as logs:
        assert [code(client) for _ in range(3)] == [200, 200, 429]
    assert sum(event["event"] == "redis_down" for event in logs) == 1


def test_one_that_hangs_costs_a_fraction_of_a_second_once(build: Path, backend: FakeBackend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = app_of(build, backend, f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 9)
        began = time.monotonic()
        assert [code(client) for _ in range(3)] == [200] * 3
        assert REDIS_TIMEOUT_S <= time.monotonic() - began < REDIS_TIMEOUT_S + WAIT_S / 4
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # who asks Redis connects first
            silent.accept()


def test_after_a_failure_one_request_at_a_time_looks_whether_it_is_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tried = [0.0], []
    rates = RateLimitCounters(redis.url, lambda: now[0])
    hit = SlidingWindowCounterRateLimiter.hit

    def counted(limiter: object, *arguments: object, **options: int) -> bool:
        tried.append(type(limiter.storage).__name__)  # type: ignore[attr-defined]
        return hit(limiter, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SlidingWindowCounterRateLimiter, "hit", counted)
    redis.kill()
    with capture_logs():
        for now[0] in (0.0, 1.0, 5.1, 5.2):
            rates.hit(9, "x", "y")
    assert tried.count("RedisStorage") == 2 and tried.count("MemoryStorage") == 4
    redis.start()
    for now[0] in (10.3, 10.4):
        rates.hit(9, "x", "y")
    assert tried[-2:] == ["RedisStorage", "RedisStorage"] and redis.counts() > 0


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_under_load_its_loss_fails_no_request(build: Path, redis: RedisServer, fault: signal.Signals) -> None:
    limits = {"REQUESTS_PER_MINUTE": "100000", "ADDRESS_REQUESTS_PER_MINUTE": "100000"}
    with live_gateway(build, REDIS_URL=redis.url, TRUSTED_PROXIES="1", **limits) as url, Load(url) as load:
        assert eventually(lambda: load.answered > 20 and redis.counts() > 0, WAIT_S)
        before = load.answered
        os.kill(redis.process.pid, fault)
        assert eventually(lambda: load.answered > before + 60, WAIT_S)
    assert set(load.codes) == {200}
    usual_s, after_s = median(load.seconds[:before]), median(load.seconds[before:])
    assert after_s < 2 * usual_s + REDIS_TIMEOUT_S / 2, "each request waited for it"


class Load:
    """Clients from afar who ask one thing after another, and what came of it; ends with the block."""

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self.codes: list[int] = []
        self.seconds: list[float] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    @property
    def answered(self) -> int:
        return len(self.seconds)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _ask(self) -> None:
        while not self._over.is_set():
            headers = {"X-Forwarded-For": FAR, "Content-Type": "application/json"}
            request = urllib.request.Request(self._url + OPENAI_URL, BODY, headers)
            began = time.monotonic()
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                reply.read()
                self.codes.append(reply.status)
            self.seconds.append(time.monotonic() - began)
