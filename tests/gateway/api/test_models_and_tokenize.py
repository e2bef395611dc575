"""GET /v1/models and POST /v1/tokenize tell what /v1/chat/completions then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from samples import OPENAI_URL

from gateway.app import create_app
from gateway.settings import GatewaySettings

NAME, ALIAS = "zai-org/GLM-4.6V-Flash", "ours/vision"


@pytest.mark.parametrize("name", [NAME, ALIAS])
def test_a_name_with_a_slash_leads_to_its_model(build: Path, backend: FakeBackend, name: str) -> None:
    settings = GatewaySettings(build=build, model_name=NAME, model_aliases=(ALIAS,))
    response = create_app(settings, backend).test_client().get(f"/v1/models/{name}")
    assert (response.status_code, response.get_json()["id"]) == (200, NAME)


@pytest.mark.parametrize("by_default", [False, True])
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"thinking": True},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_tokens_are_counted_as_they_will_be_thought_about(
    build: Path, backend: FakeBackend, by_default: bool, switches: dict[str, Any]
) -> None:
    client = create_app(GatewaySettings(build=build, thinking=by_default), backend).test_client()
    body = {"messages": [{"role": "user", "content": "Hi"}], **switches}
    asked = client.post(OPENAI_URL, json=body).get_json()["usage"]["prompt_tokens"]
    assert client.post("/v1/tokenize", json=body).get_json()["count"] == asked


def test_a_text_is_tokenised_by_the_names_that_other_servers_have(build: Path, backend: FakeBackend) -> None:
    client = create_app(GatewaySettings(build=build), backend).test_client()
    text = "A 媽 🤗"
    ids = client.post("/v1/tokenize", json={"prompt": text}).get_json()["tokens"]
    pieces = client.post("/v1/tokenize", json={"content": text, "with_pieces": True}).get_json()["tokens"]
    assert [each["id"] for each in pieces] == ids
    spelled = (each["piece"].encode() if isinstance(each["piece"], str) else bytes(each["piece"]) for each in pieces)
    assert b"".join(spelled).decode() == text
    assert client.post("/v1/tokenize", json={"prompt": text, "content": text}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/messages/count_tokens"])
def test_counting_tells_of_fields_that_nobody_knows(build: Path, backend: FakeBackend, path: str) -> None:
    client = create_app(GatewaySettings(build=build), backend).test_client()
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0}
    assert "Warning" not in client.post(path, json=body).headers
    assert "sistem" in client.post(path, json={**body, "sistem": "Be brief."}).headers["Warning"]
    strict = create_app(GatewaySettings(build=build, unknown_fields="refuse"), backend).test_client()
    assert strict.post(path, json={**body, "sistem": "Be brief."}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/apply-template", "/apply-template"])
def test_a_conversation_is_told_as_the_text_of_its_prompt(build: Path, backend: FakeBackend, path: str) -> None:
    client = create_app(GatewaySettings(build=build), backend).test_client()
    body = {"messages": [{"role": "user", "content": "Hi 媽"}]}
    told = client.post(path, json=body).get_json()["prompt"]
    ids = client.post("/v1/tokenize", json=body).get_json()["tokens"]
    assert "Hi 媽" in told and client.post("/v1/detokenize", json={"tokens": ids}).get_json()["prompt"] == told
