"""What clients of llama.cpp's own API ask: a text goes on, and what is served and how busy it is is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import ask

from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.settings import GatewaySettings
from glmserve.limits import MAX_NEW_TOKENS

URL = "/completion"


def sampled(client: FlaskClient, backend: FakeBackend, **fields: Any) -> Any:
    response = client.post(URL, json={"prompt": "The circle is", **fields})
    assert response.status_code == 200, response.text
    return backend.requests[-1].sampling


def test_fields_by_llama_cpps_names_are_ours(client: FlaskClient, backend: FakeBackend) -> None:
    found = sampled(client, backend, n_predict=7, n_probs=3, repeat_penalty=1.25, seed=-1, top_k=40)
    assert (found.max_tokens, found.logprobs, found.top_logprobs) == (7, True, 3)
    assert (found.repetition_penalty, found.top_k) == (1.25, 40) and found.seed >= 0
    ours = sampled(client, backend, n_predict=7, max_tokens=9, repeat_penalty=1.25, repetition_penalty=1.5)
    assert (ours.max_tokens, ours.repetition_penalty) == (9, 1.5)


@pytest.mark.parametrize("endless", [-1, 0])
def test_as_many_tokens_as_there_is_room_for_may_be_asked_for(
    client: FlaskClient, backend: FakeBackend, endless: int
) -> None:
    room = client.get("/props").get_json()["default_generation_settings"]["n_ctx"] - len("The circle is")
    assert sampled(client, backend, n_predict=endless).max_tokens >= min(room, MAX_NEW_TOKENS) // 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"n_predict": -2}, "n_predict"),
        ({"n_probs": 21}, "n_probs"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"return_token_ids": True}, "return_token_ids"),
        ({"mirostat": 2}, "mirostat"),
        ({"response_fields": "content"}, "response_fields"),
        ({"model": "other"}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field_at_fault(client: FlaskClient, fields: Any, field: str) -> None:
    response = client.post(URL, json={"prompt": "Hi", **fields})
    assert response.status_code in (400, 404) and response.get_json()["error"]["param"] == field


def test_several_answers_are_a_list_by_index(client: FlaskClient) -> None:
    found = client.post(URL, json={"prompt": ["Hi", "Ho"]}).get_json()
    assert [(each["index"], each["prompt"]) for each in found] == [(0, "Hi"), (1, "Ho")]


def test_a_stop_string_is_told(client: FlaskClient) -> None:
    found = client.post(URL, json={"prompt": "Hi", "stop": ["circle"]}).get_json()
    assert (found["stop_type"], found["stopping_word"], found["content"]) == ("word", "circle", "A red ")


@pytest.mark.parametrize("path", [URL, "/v1/completions"])
def test_each_piece_of_a_stream_tells_the_pace_where_it_is_asked_for(client: FlaskClient, path: str) -> None:
    lines = client.post(path, json={"prompt": "Hi", "stream": True, "timings_per_token": True}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    counts = [each["timings"]["predicted_n"] for each in events if "timings" in each]
    assert len(counts) > 1 and counts == sorted(counts) and counts[0] > 0


def test_a_slot_is_busy_while_a_request_runs(client: FlaskClient, image: str) -> None:
    stream = ask(client, image, stream=True)
    slots = client.get("/slots").get_json()
    assert [each["id"] for each in slots if each["is_processing"]] == [0]
    assert len(slots) == client.get("/props").get_json()["total_slots"]
    stream.close()


@pytest.mark.parametrize("path", ["/props", "/slots", "/v1/props", "/v1/slots/", "/tokenizer_info"])
def test_what_is_served_is_told_to_keys_only(build: Path, backend: FakeBackend, tmp_path: Path, path: str) -> None:
    secret = create_key(tmp_path / "keys.json", "shop")
    client = create_app(GatewaySettings(build=build, keys_file=tmp_path / "keys.json"), backend).test_client()
    assert client.get(path).status_code == client.post("/invocations", json={}).status_code == 401
    assert client.get(path, headers={"X-API-Key": secret}).status_code == 200
