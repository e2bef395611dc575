"""An answer whose time runs out says what would help, or is cut there for a client that asked for that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, ask, ask_openai
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.settings import GatewaySettings
from glmserve.errors import BackendDown, DeadlineExceeded

Ask = Callable[..., TestResponse]
ROUTES = pytest.mark.parametrize("asks", [ask, ask_openai])


@pytest.fixture
def late(backend: FakeBackend) -> FakeBackend:
    """It has generated all but its last words when the time is over."""
    backend.chunks, backend.error = backend.chunks[:-1], DeadlineExceeded()
    assert backend.chunks
    return backend


def sentence(body: dict[str, Any]) -> str:
    return body["error"]["message"] if isinstance(body["error"], dict) else body["error"]


def events(response: TestResponse) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@ROUTES
def test_a_504_says_what_would_help_this_very_request(
    client: FlaskClient, late: FakeBackend, image: str, asks: Ask
) -> None:
    response = asks(client, image, max_tokens=77)
    said = sentence(response.get_json())
    assert response.status_code == 504
    for word in ("77 were allowed", "smaller images", '"stream": true', '"partial_on_timeout": true'):
        assert word in said, word
    assert "GLM_GATEWAY_DEADLINE_S" in said and "X-Request-Timeout" not in said  # there is nothing more to allow


def test_what_would_not_help_is_not_advised(client: FlaskClient, late: FakeBackend) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "partial_on_timeout": True}
    late.chunks = []
    response = client.post(OPENAI_URL, json=body, headers={"X-Request-Timeout": "5"})
    said = sentence(response.get_json())
    assert response.status_code == 504
    assert "image" not in said and "partial_on_timeout" not in said
    assert "within 5 seconds" in said and "X-Request-Timeout, of up to 30 seconds" in said


@ROUTES
def test_a_stream_that_runs_out_of_time_ends_with_the_same_words(
    client: FlaskClient, late: FakeBackend, image: str, asks: Ask
) -> None:
    last = events(asks(client, image, stream=True))[-1]
    assert "What helps: fewer max_tokens" in sentence(last) and '"stream"' not in sentence(last)


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_for_it_gets_what_there_is_and_is_told_so(
    client: FlaskClient, late: FakeBackend, image: str, asks: Ask, stream: bool
) -> None:
    with capture_logs() as logs:
        response = asks(client, image, partial_on_timeout=True, stream=stream)
        told = events(response) if stream else [response.get_json()]
        response.close()
    assert response.status_code == 200
    ended = [body for body in told if body.get("timed_out")]
    assert len(ended) == 1
    choice = (ended[0].get("choices") or [ended[0]])[0]
    assert choice["finish_reason"] == "length"  # which every client knows
    text = "".join(_text(body) for body in (told[:-1] if stream and asks is ask else told))
    assert text and "A red circle.".startswith(text)
    assert next(log for log in logs if log["event"] == "request_end")["timed_out"] is True


def _text(body: dict[str, Any]) -> str:
    if "choices" in body:
        choice = (body["choices"] or [{}])[0]
        return (choice.get("message") or choice.get("delta") or {}).get("content") or ""
    return body.get("delta") or body.get("result") or ""


@ROUTES
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_no_answer(client: FlaskClient, late: FakeBackend, image: str, asks: Ask, stream: bool) -> None:
    late.chunks = []
    assert asks(client, image, partial_on_timeout=True, stream=stream).status_code == 504


def test_another_failure_is_no_answer_either(client: FlaskClient, late: FakeBackend, image: str) -> None:
    late.error = BackendDown()
    assert ask(client, image, partial_on_timeout=True).status_code == 503


def test_an_answer_that_ends_in_time_does_not_speak_of_time(client: FlaskClient, image: str) -> None:
    assert "timed_out" not in ask(client, image, partial_on_timeout=True).get_json()


def test_the_field_must_be_a_flag(client: FlaskClient, image: str) -> None:
    response = ask(client, image, partial_on_timeout="yes")
    assert response.status_code == 400 and "partial_on_timeout must be true or false" in sentence(response.get_json())


def test_a_client_who_hears_nothing_at_all_is_advised_too(build: Path, image: str) -> None:
    backend = FakeBackend(gate=threading.Event())
    client = create_app(GatewaySettings(build=build, deadline_s=0.5), backend).test_client()
    response = ask(client, image)
    assert response.status_code == 504 and "not complete within 0.5 seconds" in sentence(response.get_json())
