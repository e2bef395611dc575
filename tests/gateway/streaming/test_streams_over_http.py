"""Streams from a Triton to a client through the web server: the same words whichever thread wrote them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from eventually import eventually
from live_gateway import REAL, gauge, running_gateway
from small_triton import SmallTriton, failure, message
from tritonclient.grpc import service_pb2_grpc

from glmserve.contract import Finish
from glmserve.errors import Overloaded, to_wire
from glmserve.model.tokenizer import Tokenizer

WAIT_S = 20
WORDS = "A red circle, and a 图 of more. " * 4
MANY = 3000  # pieces of some 300 bytes


@pytest.fixture(scope="module")
def triton() -> Generator[tuple[SmallTriton, str]]:
    servicer = SmallTriton()
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"grpc://127.0.0.1:{port}"
    server.stop(None).wait(WAIT_S)


@pytest.fixture(scope="module")
def url(build: Path, triton: tuple[SmallTriton, str]) -> Generator[str]:
    with running_gateway(build, REAL, TRITON_URL=triton[1]) as gateway:
        yield gateway.url


def says(tokens: list[int], pause_s: float = 0.0, end: Any = None) -> Any:
    def script(_request: Any, _context: Any) -> Iterator[Any]:
        pause = threading.Event()
        for token in tokens:
            yield message([token])
            pause.wait(pause_s)
        yield end or message([], Finish.LENGTH)

    return script


def asked(url: str, version: str = "1.1", **options: Any) -> socket.socket:
    """A connection on which a stream was asked for."""
    asked = {"messages": [{"role": "user", "content": "What?"}], "stream": True, **options}
    return sent(url, "/v1/chat/completions", asked, version)


def sent(url: str, path: str, values: dict[str, Any], version: str = "1.1") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(values).encode()
    connection = socket.create_connection((host, int(port)), WAIT_S)
    head = (
        f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def events(connection: socket.socket) -> list[dict[str, Any]]:
    """The events of a stream that came whole."""
    with connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        lines = response.read().decode().split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def text(found: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for event in found for choice in event.get("choices", ()))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("pause_s", [0.0, 0.003], ids=["at once", "one by one"])
def test_every_word_comes_once_and_in_order(
    url: str, triton: Any, tokenizer: Tokenizer, version: str, pause_s: float
) -> None:
    triton[0].script = says(tokenizer.encode(WORDS), pause_s)
    found = events(asked(url, version))
    assert text(found) == WORDS.strip() and found[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("pause_s", [0.0, 0.003], ids=["at once", "one by one"])
def test_an_answer_that_begins_with_blanks_has_its_head_before_its_words(
    url: str, triton: Any, tokenizer: Tokenizer, image: str, pause_s: float
) -> None:
    """Blanks at its beginning are not shown, so the first pieces have nothing to write."""
    triton[0].script = says(tokenizer.encode(f"\n \n\n {WORDS}"), pause_s)
    found = events(sent(url, "/v1/chat/vision", {"image": image, "prompt": "What?", "stream": True}))
    assert "".join(event.get("delta", "") for event in found) == found[-1]["result"] == WORDS.strip()


def test_a_stop_string_ends_the_stream_and_the_rest_is_not_generated(
    url: str, triton: Any, tokenizer: Tokenizer
) -> None:
    triton[0].ended.clear()
    triton[0].script = says(tokenizer.encode(WORDS) * 500, 0.003)
    found = events(asked(url, stop="and"))
    assert text(found) == "A red circle," and found[-1]["choices"][0]["finish_reason"] == "stop"
    assert triton[0].ended.wait(WAIT_S)


def test_a_failure_in_mid_stream_is_one_event_at_the_end(url: str, triton: Any, tokenizer: Tokenizer) -> None:
    triton[0].script = says(tokenizer.encode("A red circle"), 0.003, failure(to_wire(Overloaded("Full."))))
    found = events(asked(url))
    assert text(found) == "A red circle" and found[-1]["error"]["code"] == Overloaded.code


def test_a_client_that_reads_slowly_gets_every_word_and_holds_up_no_other(
    url: str, triton: Any, tokenizer: Tokenizer
) -> None:
    triton[0].script = says(tokenizer.encode("x" * MANY)[:1] * MANY)
    slow = asked(url)
    began = time.monotonic()
    other = events(asked(url))
    assert time.monotonic() - began < WAIT_S / 2
    assert len(text(other)) == len(text(events(slow))) > 0


def test_a_client_that_leaves_in_mid_stream_frees_its_place(url: str, triton: Any, tokenizer: Tokenizer) -> None:
    triton[0].ended.clear()
    triton[0].script = says(tokenizer.encode(WORDS) * 500, 0.003)
    connection = asked(url)
    assert connection.recv(1)
    connection.close()
    assert triton[0].ended.wait(WAIT_S)
    assert eventually(lambda: gauge(url, "running_requests") == 0)
