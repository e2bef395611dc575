"""What is not there says so in the caller's shape, and no proxy takes it for a dead deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL

from gateway.app import create_app
from gateway.settings import GatewaySettings


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/audio/speech", "/v1/responses/resp_1/cancel"])
def test_a_route_that_openai_has_and_we_do_not_is_a_method_not_allowed(client: FlaskClient, path: str) -> None:
    """LiteLLM takes a deployment out of service for a 404, however well it answers other requests."""
    response = client.post(path, json={"input": "Hi"})
    error = response.get_json()["error"]
    assert response.status_code == 405 and response.headers["Allow"] == ""
    assert error["type"] == "invalid_request_error" and "has no /v1/" in error["message"]


def test_an_address_that_nobody_knows_is_not_found(client: FlaskClient) -> None:
    response = client.post("/v1/nothing", json={})
    assert response.status_code == 404 and response.get_json()["error"]["code"] == "not_found"
    assert client.get("/nothing").get_json()["success"] is False


def test_a_wrong_method_names_the_right_ones(client: FlaskClient) -> None:
    response = client.get("/v1/completions")
    assert response.status_code == 405 and "POST" in response.headers["Allow"]
    assert response.get_json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Hi"},
        {"input": "Hi"},
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    ],
)
def test_a_field_that_nobody_knows_is_told_on_each_route(client: FlaskClient, body: dict[str, object]) -> None:
    path = {"prompt": "/v1/completions", "input": "/v1/responses", "messages": "/v1/messages"}[next(iter(body))]
    assert "Warning" not in client.post(path, json=body).headers
    response = client.post(path, json={**body, "temprature": 0})
    assert response.status_code == 200 and "temprature (do you mean temperature?)" in response.headers["Warning"]


def test_answers_tell_what_is_left_as_openai_does(build: Path, backend: FakeBackend, image: str) -> None:
    settings = GatewaySettings(build=build, requests_per_minute=50, image_tokens_per_minute=1000)
    client = create_app(settings, backend).test_client()
    parts = [{"type": "image_url", "image_url": f"data:image/png;base64,{image}"}, {"type": "text", "text": "Hi"}]
    for content, spends in (("Hi", False), (parts, True)):
        headers = client.post(OPENAI_URL, json={"messages": [{"role": "user", "content": content}]}).headers
        assert headers["x-ratelimit-limit-requests"] == "50" and headers["x-ratelimit-limit-tokens"] == "1000"
        assert int(headers["x-ratelimit-remaining-requests"]) < 50
        assert (int(headers["x-ratelimit-remaining-tokens"]) < 1000) == spends
        assert headers["x-ratelimit-reset-requests"].endswith("s") and headers["x-ratelimit-reset-tokens"].endswith("s")
