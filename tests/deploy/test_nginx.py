"""What our nginx refuses by itself looks like a gateway's refusal, and what a gateway answers passes as it is."""

from __future__ import annotations

import http.client
import json
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from eventually import eventually

from bench.ports import free_port
from bench.servers.nginx import PROGRAM, nginx_command
from gateway.settings import GatewaySettings

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")
OURS, OPENAIS = "/v1/chat/vision", "/v1/chat/completions"
SOON = {"proxy_read_timeout 45s": "proxy_read_timeout 1s"}
LARGEST = GatewaySettings.model_fields["max_body_bytes"].default
WAIT_S = 20.0


class Upstream(BaseHTTPRequestHandler):
    """A gateway that refuses whatever it reads, or says nothing for a while."""

    let_go = threading.Event()
    asked: ClassVar[list[tuple[int, str]]] = []
    asked_at: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.server.server_address[1], self.headers["X-Request-Start"]))  # type: ignore[misc]
        self.asked_at.append(time.time())
        if self.path == "/dies-once" and len(self.asked) == 1:
            time.sleep(0.3)
            self.close_connection = True
            return
        if self.path == "/silent":
            self.let_go.wait(WAIT_S)
        body = json.dumps({"said": "by the gateway", "id": self.headers["X-Request-ID"]}).encode()
        self.send_response(413)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Front:
    """A running nginx."""

    port: int

    def ask(self, path: str, size: int = 2, method: str = "POST", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with closing(connection):
            connection.putrequest(method, path)
            for name, value in {"Content-Length": str(size), **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            try:
                connection.send(b"x" * size)
            except OSError:  # refused by its length already
                assert size > LARGEST
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), json.loads(response.read()))


@contextmanager
def nginx(folder: Path, upstream: int, changes: dict[str, str], *others: int) -> Iterator[Front]:
    """The configuration that containers get, but for the addresses beside it and what a test cannot wait for."""
    front = Front(free_port())
    command = nginx_command(folder, front.port, (upstream, *others), "max_fails=0", changes)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + WAIT_S
        while not _listens(front.port):
            assert process.poll() is None and time.monotonic() < give_up, (folder / "log").read_text()
            time.sleep(0.05)
        yield front
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _listens(port: int) -> bool:
    """By a connection without a request: nginx counts requests, and a test may allow two."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture
def upstream() -> Iterator[int]:
    Upstream.let_go.clear()
    Upstream.asked.clear()
    Upstream.asked_at.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        Upstream.let_go.set()
        server.shutdown()


@pytest.fixture
def front(tmp_path: Path, upstream: int) -> Iterator[Front]:
    with nginx(tmp_path, upstream, SOON) as running:
        yield running


def assert_refused(reply: Reply, status: int, word: str, is_openais: bool = False) -> None:
    assert reply.status == status, reply
    assert reply.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in reply.headers) == (status in (429, 503))
    if is_openais:
        assert set(reply.body) == {"error"} and set(reply.body["error"]) == {"message", "type", "param", "code"}
        assert word in reply.body["error"]["message"]
        assert (reply.body["error"]["type"] == "server_error") == (status >= 500)
    else:
        assert set(reply.body) == {"error", "success", "request_id"} and reply.body["success"] is False
        assert word in reply.body["error"] and reply.body["request_id"] == reply.headers["X-Request-ID"]


@pytest.mark.parametrize(("path", "is_openais"), [(OURS, False), (OPENAIS, True)])
def test_a_body_that_is_far_too_large_is_a_413_in_json(front: Front, path: str, is_openais: bool) -> None:
    assert_refused(front.ask(path, LARGEST + 2 * 1024**2), 413, "too large", is_openais)


@pytest.mark.parametrize("path", ["/v1/messages", "/messages/count_tokens"])
def test_anthropics_clients_are_refused_in_their_shape(front: Front, path: str) -> None:
    reply = front.ask(path, LARGEST + 2 * 1024**2)
    assert (reply.status, set(reply.body)) == (413, {"type", "error", "request_id"})
    assert reply.body["error"]["type"] == "request_too_large" and "too large" in reply.body["error"]["message"]


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/responses", "/completions"])
def test_openais_clients_are_refused_in_their_shape_without_v1_too(front: Front, path: str) -> None:
    assert_refused(front.ask(path, LARGEST + 2 * 1024**2), 413, "too large", is_openais=True)


def test_what_is_just_too_large_is_answered_in_the_gateways_own_words(front: Front) -> None:
    reply = front.ask(OURS, LARGEST + 1000, X_Request_ID="mine-1")
    assert (reply.status, reply.body) == (413, {"said": "by the gateway", "id": "mine-1"})


def test_metrics_are_not_found_in_json(front: Front) -> None:
    assert_refused(front.ask("/metrics", 0, "GET", X_Request_ID="mine-2"), 404, "nothing at this address")
    assert front.ask("/metrics", 0, "GET", X_Request_ID="mine-2").body["request_id"] == "mine-2"
    assert front.ask("/metrics", 0, "GET", X_Request_ID='"}{').body["request_id"] != '"}{'


def test_a_gateway_that_says_nothing_is_a_504_in_json(front: Front) -> None:
    assert_refused(front.ask("/silent"), 504, "too long")


def test_too_many_at_a_time_are_a_429_in_json(tmp_path: Path, upstream: int) -> None:
    with (
        nginx(tmp_path, upstream, {"limit_conn addresses 64": "limit_conn addresses 1"}) as front,
        closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT_S)) as first,
    ):
        first.request("POST", "/silent", b"x")
        give_up = time.monotonic() + WAIT_S
        while (reply := front.ask(OPENAIS)).status != 429:
            assert time.monotonic() < give_up
        assert_refused(reply, 429, "at a time", is_openais=True)
        Upstream.let_go.set()
        assert first.getresponse().status == 413


def test_senders_that_never_finish_take_no_gateways_thread_and_only_their_own_addresss_connections(
    tmp_path: Path, upstream: int
) -> None:
    """nginx bounds the time between two pieces of a body, and not their sum: so it bounds how many there may be."""
    with (
        nginx(tmp_path, upstream, {"limit_conn addresses 64": "limit_conn addresses 2"}) as front,
        ExitStack() as stack,
    ):

        def sender() -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", front.port), WAIT_S))
            client.sendall(b"POST /v1/chat/vision HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
            return client

        def is_full() -> bool:
            refused, _, _ = select.select(slow, [], [], 0)  # while an earlier connection was still counted
            slow[:] = [sender() if client in refused else client for client in slow]
            return front.ask(OURS).status == 429

        slow = [sender(), sender()]
        assert eventually(is_full, WAIT_S)
        for client in slow:
            client.sendall(b"x")
        count = len(Upstream.asked)  # what was asked before both of them were counted
        time.sleep(0.3)
        assert len(Upstream.asked) == count <= 2


@pytest.mark.parametrize(("path", "is_openais"), [(OURS, False), (OPENAIS, True), ("/health/ready", False)])
def test_no_gateway_is_a_503_in_json_that_says_when_to_come_back(tmp_path: Path, path: str, is_openais: bool) -> None:
    with nginx(tmp_path, free_port(), {}) as front:
        assert_refused(front.ask(path), 503, "try again", is_openais)


def test_a_request_that_is_none_is_a_400_in_json(front: Front) -> None:
    assert_refused(front.ask(OURS, X=f"{'x' * 60_000}"), 400, "could not be read")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /../../x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=lambda sent: sent[:24].decode("latin1"),
)
def test_a_malformed_request_is_the_callers_mistake_in_json(front: Front, sent: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", front.port), WAIT_S)) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        reply = http.client.HTTPResponse(client)
        reply.begin()
        body = json.loads(reply.read())
    assert 400 <= reply.status <= 505 and reply.status != 500, reply.status
    assert reply.getheader("Content-Type") == "application/json"
    assert set(body) == {"error", "success", "request_id"} and body["success"] is False


def test_the_page_of_problems_is_no_address_of_its_own(front: Front) -> None:
    assert front.ask("/problem", 0, "GET").status == 404


@pytest.fixture
def second(upstream: int) -> Iterator[int]:
    """Another gateway; the first one is there too."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        Upstream.let_go.set()
        server.shutdown()


def test_a_second_gateway_is_told_when_the_first_one_was_asked(tmp_path: Path, upstream: int, second: int) -> None:
    with nginx(tmp_path, upstream, {}, second) as front:
        began = time.time()
        assert front.ask("/dies-once", X_Request_Start="t=1").status == 413
    (first_port, first), (second_port, again) = Upstream.asked
    assert {first_port, second_port} == {upstream, second}
    assert first == again and began - 0.25 < float(first.removeprefix("t=")) < Upstream.asked_at[0] + 0.25


def test_after_a_frozen_gateway_no_other_begins_anew(tmp_path: Path, upstream: int, second: int) -> None:
    soon = SOON | {"proxy_next_upstream_timeout 30s": "proxy_next_upstream_timeout 500ms"}
    with nginx(tmp_path, upstream, soon, second) as front:
        assert_refused(front.ask("/silent"), 504, "too long")
    assert len(Upstream.asked) == 1
