"""An answer in pieces: every word once and in order, a sign of life before the first, and one end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import ask, assert_problem
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.contract import Finish
from glmserve.errors import BackendDown, BadArtifact, GlmServeError, Overloaded

Script = Callable[..., list[Chunk]]
WAIT_S = 10


def events(response: TestResponse) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: ")]


def impatient(build: Path, backend: FakeBackend, **settings: Any) -> FlaskClient:
    return create_app(GatewaySettings(build=build, heartbeat_s=0.02, **settings), backend).test_client()


def test_deltas_add_up_to_the_result(client: FlaskClient, backend: FakeBackend, says: Script, image: str) -> None:
    backend.chunks = says("  A red circle,\n\nand 图  more. \n")
    response = ask(client, image, stream=True)
    assert response.mimetype == "text/event-stream" and response.status_code == 200
    *deltas, last = events(response)
    assert "".join(event["delta"] for event in deltas) == last["result"] == "A red circle,\n\nand 图  more."
    assert all(set(event) == {"delta"} for event in deltas) and len(deltas) > 3


def test_the_last_event_is_the_answer_that_would_have_come_whole(client: FlaskClient, image: str) -> None:
    whole = ask(client, image).get_json()
    last = events(ask(client, image, stream=True))[-1]
    differs = ("request_id", "timings")
    assert {k: v for k, v in last.items() if k not in differs} == {k: v for k, v in whole.items() if k not in differs}
    assert last["timings"]["total_ms"] >= 0


def test_thoughts_come_apart(client: FlaskClient, backend: FakeBackend, says: Script, image: str) -> None:
    backend.chunks = says("<think>round, red</think>\nA circle.")
    found = events(ask(client, image, stream=True, thinking=True))
    assert "".join(event.get("thinking", "") for event in found[:-1]) == found[-1]["thinking"] == "round, red"
    assert "".join(event.get("delta", "") for event in found[:-1]) == "A circle."


def test_a_stop_string_is_never_shown(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    found = events(ask(client, image, stream=True, stop="circle"))
    assert "".join(event.get("delta", "") for event in found) == found[-1]["result"] == "A red"
    assert backend.cancelled == 1


def test_a_comment_comes_while_nothing_else_does(build: Path, says: Script, image: str) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    response = ask(impatient(build, backend), image, stream=True)
    pieces = iter(response.response)
    assert next(pieces).startswith(b":") and next(pieces).startswith(b":")
    assert backend.gate is not None
    backend.gate.set()
    rest = b"".join(pieces)
    assert b'"delta"' in rest and b'"success":true' in rest
    response.close()


@pytest.mark.parametrize(("error", "status"), [(Overloaded(), 503), (BackendDown(), 503), (GlmServeError(), 500)])
def test_what_fails_before_the_first_word_has_a_status_of_its_own(
    client: FlaskClient, backend: FakeBackend, image: str, error: GlmServeError, status: int
) -> None:
    backend.chunks, backend.error = [], error
    assert_problem(ask(client, image, stream=True), status)


def test_a_wrong_request_for_a_stream_is_a_400(client: FlaskClient, image: str) -> None:
    assert_problem(ask(client, image, stream=True, temperature=9), 400, "temperature")


def test_what_fails_later_is_one_event_at_the_end(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks, backend.error = backend.chunks[:2], BadArtifact("/secret at 0xdead")
    with capture_logs() as logs:
        response = ask(client, image, stream=True)
        found = events(response)
        response.close()
    assert found[-1]["success"] is False and "secret" not in found[-1]["error"] and "request_id" in found[-1]
    assert sum("error" in event for event in found) == 1
    assert logs[-1]["error"] == "bad_artifact"


def test_a_stream_without_an_end_is_an_error_event(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks = backend.chunks[:2]
    assert events(ask(client, image, stream=True))[-1]["success"] is False


def test_a_bug_in_mid_stream_is_an_error_event_without_details(
    client: FlaskClient, backend: FakeBackend, image: str
) -> None:
    backend.chunks[1] = Chunk(("no number",), Finish.RUNNING)  # type: ignore[arg-type]
    with capture_logs():
        last = events(ask(client, image, stream=True))[-1]
    assert last["success"] is False and "number" not in last["error"]


def test_a_client_that_leaves_in_mid_stream_cancels(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    with capture_logs() as logs:
        response = ask(client, image, stream=True)
        next(iter(response.response))
        response.close()
    assert backend.cancelled == 1
    assert (logs[-1]["event"], logs[-1]["error"]) == ("request_end", "cancelled")


def test_a_client_that_leaves_before_the_first_word_cancels(build: Path, says: Script, image: str) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    response = ask(impatient(build, backend), image, stream=True)
    began = time.monotonic()
    response.close()
    assert backend.cancelled == 1 and time.monotonic() - began < 2


def test_a_stream_is_logged_once_when_it_has_ended(client: FlaskClient, image: str) -> None:
    with capture_logs() as logs:
        response = ask(client, image, stream=True)
        assert not logs
        assert events(response)
        response.close()
    assert [(event["event"], event["finish_reason"]) for event in logs] == [("request_end", "stop")]
    assert logs[0]["completion_tokens"] > 0 and logs[0]["first_token_ms"] >= 0


def test_a_stream_that_runs_out_of_time_says_so(build: Path, says: Script, image: str) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    found = events(ask(impatient(build, backend, deadline_s=0.2), image, stream=True))
    assert found == [{"error": found[0]["error"], "success": False, "request_id": found[0]["request_id"]}]
    assert "too long" in found[0]["error"]
