"""The small routes that clients of OpenAI's and vLLM's servers expect, and the other ways of writing an address."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, ask

import gateway
from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.settings import GatewaySettings
from glmserve.model.tokenizer import Tokenizer

MESSAGES = [{"role": "user", "content": "Hi <|image|>"}]
ROOT = Path(__file__).resolve().parents[3]


def test_tokens_of_a_conversation_are_those_that_are_sent_and_their_text_is_the_prompt(
    client: FlaskClient, backend: FakeBackend
) -> None:
    body = {"messages": MESSAGES, "return_token_strs": True}
    told = client.post("/v1/tokenize", json=body).get_json()
    client.post(OPENAI_URL, json=body)
    assert told["tokens"] == backend.requests[0].input_ids.tolist() and told["count"] == len(told["tokens"])
    text = client.post("/v1/detokenize", json={"tokens": told["tokens"]}).get_json()["prompt"]
    assert text.startswith("[gMASK]<sop><|user|>\nHi ") and "".join(told["token_strs"]) == text


def test_a_conversation_is_counted_with_and_without_the_beginning_of_an_answer(client: FlaskClient) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]
    texts = []
    for more in ({}, {"add_generation_prompt": False}, {"continue_final_message": True}):
        ids = client.post("/v1/tokenize", json={"messages": turns, **more}).get_json()["tokens"]
        texts.append(client.post("/v1/detokenize", json={"tokens": ids}).get_json()["prompt"])
    assert texts[0].startswith(texts[1]) and len(texts[0]) > len(texts[1]) and texts[2].endswith("It is")


def test_a_prompt_is_tokenised_as_it_stands(client: FlaskClient, tokenizer: Tokenizer) -> None:
    told = client.post("/v1/tokenize", json={"prompt": "<|user|>\n你好"}).get_json()
    assert told["tokens"] == tokenizer.encode("<|user|>\n你好") and told["token_strs"] is None


@pytest.mark.parametrize("body", [{}, {"messages": MESSAGES, "prompt": "Hi"}, {"prompt": ""}, {"prompt": 5}])
def test_what_cannot_be_tokenised_is_refused_with_the_field_at_fault(client: FlaskClient, body: Any) -> None:
    response = client.post("/v1/tokenize", json=body)
    assert response.status_code == 400 and response.get_json()["error"]["param"] in ("messages", "prompt")


@pytest.mark.parametrize("tokens", [None, [-1], [10**9], ["a"], [2**70], "text"])
def test_ids_that_no_token_has_are_refused(client: FlaskClient, tokens: Any) -> None:
    response = client.post("/v1/detokenize", json={"tokens": tokens})
    assert response.status_code == 400 and response.get_json()["error"]["param"].startswith("tokens")


def test_the_model_says_what_it_can_do(client: FlaskClient) -> None:
    (model,) = client.get("/v1/models").get_json()["data"]
    assert model["capabilities"] == {
        "completion": True,
        "vision": True,
        "tools": True,
        "reasoning": True,
        "structured_output": True,
    }
    assert model["context_length"] == model["max_model_len"] > 0 and model["created_at"].endswith("Z")


@pytest.mark.parametrize("path", ["/health", "/ping", "/health/ready"])
def test_probes_of_other_servers_say_whether_it_is_ready(
    settings: GatewaySettings, backend: FakeBackend, path: str
) -> None:
    client = create_app(settings, backend).test_client()
    assert (client.get(path).status_code, client.get(path).get_json()["status"]) == (200, "ready")
    assert client.post("/ping").status_code == 200
    backend.is_ready = False
    assert create_app(settings, backend).test_client().get(path).status_code == 503


def test_the_version_is_the_projects(client: FlaskClient) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert client.get("/version").get_json()["version"] == gateway.VERSION == project["version"]


def test_the_load_is_what_runs_and_waits(client: FlaskClient, image: str) -> None:
    assert client.get("/load").get_json()["server_load"] == 0
    stream = ask(client, image, stream=True)
    assert client.get("/load").get_json()["server_load"] == 1
    stream.close()


@pytest.mark.parametrize(
    "path",
    ["/chat/completions", "/chat/completions/", "/v1/chat/completions/", "/v1/chat/completions//"],
)
def test_an_address_without_v1_or_with_a_slash_answers_alike(client: FlaskClient, path: str) -> None:
    wanted = client.post(OPENAI_URL, json={"messages": MESSAGES, "seed": 1}).get_json()
    found = client.post(path, json={"messages": MESSAGES, "seed": 1}).get_json()
    assert found["choices"] == wanted["choices"]


@pytest.mark.parametrize("path", ["/models", "/models/", "/v1/models/", "/models/GLM-4.6V-Flash-WEB"])
def test_models_answer_without_v1_too(client: FlaskClient, path: str) -> None:
    assert "GLM-4.6V-Flash-WEB" in client.get(path).text


def test_another_way_of_writing_an_address_opens_no_door(build: Path, backend: FakeBackend, tmp_path: Path) -> None:
    """Neither ours, which roles and keys open, nor that of a proxy, which may keep /metrics to itself."""
    secret = create_key(tmp_path / "keys.json", "shop")
    client = create_app(GatewaySettings(build=build, keys_file=tmp_path / "keys.json"), backend).test_client()
    assert client.get("/metrics", headers={"X-API-Key": secret}).status_code == 403
    for path in ("/metrics/", "/v1/metrics", "//metrics"):
        assert client.get(path, headers={"X-API-Key": secret}).status_code in (308, 404), path
    assert client.get("/models/").status_code == client.get("/version").status_code == 401
    assert client.get("/health").status_code == 200
