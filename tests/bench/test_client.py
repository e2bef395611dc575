"""The measuring client reads whole and streamed answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.load.closed_loop import ask, run_round
from bench.load.prompts import Question

WHOLE = {"result": "red", "success": True, "usage": {"completion_tokens": 3}}
QUESTION = Question(b"picture", "What is it?")


class StandIn(BaseHTTPRequestHandler):
    """Streams when it is asked to, with a sign of life first, as the gateway does."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
        self.end_headers()
        if body.get("stream"):
            events = [b": still working", b'data: {"delta": "r"}', b'data: {"delta": "ed"}']
            self.wfile.write(b"\n\n".join([*events, b"data: " + json.dumps(WHOLE).encode(), b""]))
        else:
            self.wfile.write(json.dumps(WHOLE).encode())

    def log_message(self, *_arguments: object) -> None:
        """Silent."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_streamed_answer_tells_when_its_first_piece_came(url: str) -> None:
    answer = ask(url, QUESTION, stream=True)
    assert (answer.text, answer.tokens) == ("red", 3)
    assert 0 < answer.first_token_s <= answer.seconds


def test_a_whole_answer_does_not_tell_when_its_first_token_came(url: str) -> None:
    assert ask(url, QUESTION).first_token_s == 0


def test_a_round_counts_the_tokens_of_all_its_answers(url: str) -> None:
    found = run_round(url, [QUESTION] * 8, clients=4)
    assert found.tokens_per_s == pytest.approx(24 / found.seconds)
