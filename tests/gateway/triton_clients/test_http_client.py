"""The HTTP client against a small Triton of our own: one answer in one piece, and every way it can fail."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from eventually import eventually
from small_triton import a_request
from structlog.testing import capture_logs

from gateway.settings import GatewaySettings
from gateway.triton.backend import GenerateRequest
from gateway.triton.http_client import TritonHttpBackend
from glmserve import contract
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, InvalidInput, Overloaded, to_wire
from glmserve.sampling_parameters import Sampling

WAIT_S = 10
LARGE_BYTES = 32 * 1024**2  # more than the sockets between two processes hold
HEAD = "Inference-Header-Content-Length"
ANSWER = {
    contract.TOKENS: [1, 2, 3],
    contract.FINISH: [Finish.LENGTH],
    contract.TIMINGS_MS: [1, 2, 3, 4],
    contract.CACHED_TOKENS: [5],
}
LOGPROBS = {contract.LOGPROB_IDS: [[1, 1], [2, 7], [3, 3]], contract.LOGPROB_VALUES: [[-0.5, -0.5], [-2, -1], [-3, -3]]}


class SmallHttpTriton(ThreadingHTTPServer):
    """Answers every inference with `reply`: a status, headers and a body; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[], tuple[int, dict[str, str], bytes]] = lambda: answer(ANSWER)
        self.ready = set(contract.MODELS)
        self.received: list[tuple[str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: SmallHttpTriton

    def do_GET(self) -> None:
        self._send(200 if self.path.split("/")[3] in self.server.ready else 400, {}, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        with suppress(ConnectionError):  # a client that gave up is what some tests are about
            self._send(*self.server.reply())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def answer(values: dict[contract.Tensor, Any]) -> tuple[int, dict[str, str], bytes]:
    arrays = {tensor: np.asarray(value, tensor.dtype) for tensor, value in values.items()}
    outputs = [
        {
            "name": tensor.name,
            "datatype": tensor.triton_dtype,
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for tensor, array in arrays.items()
    ]
    head = json.dumps({"outputs": outputs}).encode()
    return 200, {HEAD: str(len(head))}, head + b"".join(array.tobytes() for array in arrays.values())


def failure(status: int, text: str) -> tuple[int, dict[str, str], bytes]:
    return status, {}, json.dumps({"error": text}).encode()


@pytest.fixture
def large() -> Generator[GenerateRequest]:
    """A request with a picture; memory that is taken from now on is counted."""
    request = replace(a_request(), patches=np.zeros((1, LARGE_BYTES), np.uint8))
    tracemalloc.start()
    yield request
    tracemalloc.stop()


@pytest.fixture
def triton() -> Generator[SmallHttpTriton]:
    with SmallHttpTriton() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def backend(triton: SmallHttpTriton) -> TritonHttpBackend:
    return TritonHttpBackend(f"http://127.0.0.1:{triton.server_port}")


def test_an_answer_comes_in_one_piece(backend: TritonHttpBackend) -> None:
    (chunk,) = backend.generate(a_request())
    assert chunk.tokens == (1, 2, 3) and chunk.finish == Finish.LENGTH
    assert chunk.timings_ms == (1, 2, 3, 4) and chunk.cached_tokens == 5


def test_every_tensor_travels_as_the_contract_says(triton: SmallHttpTriton, backend: TritonHttpBackend) -> None:
    request = replace(a_request(), traceparent="00-1-2-01", sampling=Sampling(stop_token_ids=(7,)))
    list(backend.generate(request))
    ((path, headers, body),) = triton.received
    assert path == "/v2/models/glm4v_whole/infer" and headers["traceparent"] == "00-1-2-01"
    values, at = json.loads(body[: int(headers[HEAD])]), int(headers[HEAD])
    named, arrays = {t.name: t for t in contract.DECODER_INPUTS}, {}
    for described in values["inputs"]:
        size, tensor = described["parameters"]["binary_data_size"], named[described["name"]]
        assert described["datatype"] == tensor.triton_dtype
        arrays[tensor.name] = np.frombuffer(body[at : at + size], tensor.dtype).reshape(described["shape"])
        at += size
    assert at == len(body) and values["id"] == "r1"
    assert np.array_equal(arrays["PATCHES"], request.patches)
    assert arrays["GRIDS"].tolist() == [[4, 8]] and arrays["STOP_TOKEN_IDS"].tolist() == [7]
    assert {output["name"] for output in values["outputs"]} == {t.name for t in ANSWER} | {"STOP_TOKENS"}


def test_making_a_request_copies_its_image_once(monkeypatch: pytest.MonkeyPatch, large: GenerateRequest) -> None:
    monkeypatch.setattr("gateway.triton.http_client._GRACE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(DeadlineExceeded):
        backend = TritonHttpBackend(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        list(backend.generate(replace(large, deadline_s=0.3)))
    assert tracemalloc.get_traced_memory()[1] < 1.5 * LARGE_BYTES


def test_who_hangs_up_at_the_deadline_calls_no_triton_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a request is still being sent then, its sender's pipe breaks."""

    def send_forever(connection: http.client.HTTPConnection, *_rest: object) -> None:
        while True:
            time.sleep(0.02)
            connection.sock.sendall(b"x")

    monkeypatch.setattr("gateway.triton.http_client._GRACE_S", 0.0)
    monkeypatch.setattr("gateway.triton.http_client._send", send_forever)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(DeadlineExceeded):
        list(
            TritonHttpBackend(f"http://127.0.0.1:{deaf.getsockname()[1]}").generate(
                replace(a_request(), deadline_s=0.2)
            )
        )


def test_an_image_that_was_sent_is_not_kept_while_its_answer_is_waited_for(
    triton: SmallHttpTriton, backend: TritonHttpBackend, large: GenerateRequest
) -> None:
    def reply() -> tuple[int, dict[str, str], bytes]:
        held_once = eventually(lambda: tracemalloc.get_traced_memory()[0] < 1.5 * LARGE_BYTES)  # by this Triton
        return answer(ANSWER) if held_once else failure(500, "It is still there.")

    triton.reply = reply
    (chunk,) = backend.generate(large)
    assert chunk.tokens == (1, 2, 3)


def test_log_probabilities_come_beside_their_tokens(triton: SmallHttpTriton, backend: TritonHttpBackend) -> None:
    triton.reply = lambda: answer(ANSWER | LOGPROBS)
    (chunk,) = backend.generate(replace(a_request(), sampling=Sampling(logprobs=True, top_logprobs=1)))
    assert chunk.logprobs == (((1, -0.5), (1, -0.5)), ((2, -2.0), (7, -1.0)), ((3, -3.0), (3, -3.0)))


@pytest.mark.parametrize("error", [Overloaded("Full."), DeadlineExceeded("Late."), InvalidInput("Odd.")])
def test_our_own_errors_arrive_as_themselves(
    triton: SmallHttpTriton, backend: TritonHttpBackend, error: GlmServeError
) -> None:
    triton.reply = lambda: failure(503, to_wire(error))
    with pytest.raises(type(error), match=error.message):
        list(backend.generate(a_request()))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (failure(400, "Request for unknown model: 'glm4v_whole' is not found"), BackendDown),
        (failure(500, "Traceback: /secret.py at 0x7f"), GlmServeError),
        ((502, {}, b"<html>Bad gateway</html>"), GlmServeError),
        ((200, {}, b"{}"), GlmServeError),
        ((200, {}, b'{"outputs": [{"name": "TOKENS"}]}'), GlmServeError),
        (failure(503, to_wire(Overloaded("x" * 16 * 1024**2))), GlmServeError),  # is not read to its end
        ((200, {}, b"[]"), GlmServeError),
        ((200, {HEAD: "two"}, b"{}"), GlmServeError),
        (answer({contract.FINISH: [1]}), GlmServeError),
        (answer({replace(contract.TOKENS, dtype="int64"): [1], contract.FINISH: [1]}), GlmServeError),
    ],
)
def test_what_is_no_answer_of_ours_is_our_failure_in_our_words(
    triton: SmallHttpTriton, backend: TritonHttpBackend, reply: Any, kind: type[GlmServeError]
) -> None:
    triton.reply = lambda: reply
    with capture_logs(), pytest.raises(GlmServeError) as caught:
        list(backend.generate(a_request()))
    assert type(caught.value) is kind and "secret" not in caught.value.message


def test_nobody_listening_is_a_backend_that_is_down() -> None:
    backend = TritonHttpBackend("http://127.0.0.1:1")
    with capture_logs(), pytest.raises(BackendDown):
        list(backend.generate(a_request()))
    assert not backend.models_ready()


def test_silence_past_the_deadline_is_given_up(
    triton: SmallHttpTriton, backend: TritonHttpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.triton.http_client._GRACE_S", 0.0)
    release = threading.Event()
    triton.reply = lambda: (release.wait(WAIT_S), answer(ANSWER))[1]
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        list(backend.generate(a_request(deadline_s=0.3)))
    assert time.monotonic() - began < 3
    release.set()


def test_a_cancellation_ends_the_wait_at_once(triton: SmallHttpTriton, backend: TritonHttpBackend) -> None:
    release, request = threading.Event(), a_request()
    triton.reply = lambda: (request.cancellation.cancel(), release.wait(WAIT_S), answer(ANSWER))[2]
    began = time.monotonic()
    with pytest.raises(Cancelled):
        list(backend.generate(request))
    assert time.monotonic() - began < 3
    release.set()


def test_a_cancellation_also_ends_an_answer_that_has_begun() -> None:
    request, release = a_request(), threading.Event()

    def begin() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{")
            connection.recv(1)
            request.cancellation.cancel()
            release.wait(WAIT_S)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=begin)
        thread.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            list(TritonHttpBackend(f"http://127.0.0.1:{server.getsockname()[1]}").generate(request))
        assert time.monotonic() - began < 3
        release.set()
        thread.join()


def test_ready_means_both_models_are(triton: SmallHttpTriton, backend: TritonHttpBackend) -> None:
    assert backend.models_ready()
    triton.ready.discard(contract.WHOLE_MODEL)
    assert not backend.models_ready()


@pytest.mark.parametrize("url", ["http://one:8000,http://two:8000", "https://one:8000", "http://one"])
def test_other_addresses_are_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="triton_url"):
        GatewaySettings(triton_url=url)
