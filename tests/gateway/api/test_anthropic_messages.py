"""POST /v1/messages: Anthropic's shape over the same conversation and the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL

from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.answer_rules import AnswerRules
from glmserve.contract import Finish
from glmserve.errors import DeadlineExceeded

URL = "/v1/messages"
Script = Callable[..., list[Chunk]]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
}
CALL = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>"
ASKED = [{"role": "user", "content": "Weather?"}]


def post(client: FlaskClient, messages: Any, **more: Any) -> Any:
    return client.post(URL, json={"model": "GLM-4.6V-Flash-WEB", "max_tokens": 64, "messages": messages, **more})


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Each event's name and data; both say the same kind."""
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        values = json.loads(data.removeprefix("data: "))
        assert name == f"event: {values['type']}"
        found.append((values["type"], values))
    return found


def test_an_answer_is_a_message(client: FlaskClient) -> None:
    body = post(client, ASKED).get_json()
    assert body["content"] == [{"type": "text", "text": "A red circle."}]
    assert (body["type"], body["role"], body["stop_reason"], body["stop_sequence"]) == (
        "message",
        "assistant",
        "end_turn",
        None,
    )
    assert body["id"].startswith("msg_") and body["usage"]["input_tokens"] > 0 < body["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ASKED, {"messages": ASKED}),
        (
            [{"role": "user", "content": [{"type": "text", "text": "Wea"}, {"type": "text", "text": "ther?"}]}],
            {"messages": ASKED},
        ),
        (
            [
                *ASKED,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Ask.", "signature": "x"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "北京", "days": 2}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "sunny"}]},
                        {"type": "tool_result", "tool_use_id": "b", "content": "warm", "is_error": False},
                        {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
                    ],
                },
            ],
            {
                "messages": [
                    *ASKED,
                    {
                        "role": "assistant",
                        "content": "I look.",
                        "reasoning_content": "Ask.",
                        "tool_calls": [
                            {
                                "id": "a",
                                "type": "function",
                                "function": {"name": "weather", "arguments": '{"city": "北京", "days": 2}'},
                            }
                        ],
                    },
                    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sunny"}]},
                    {"role": "tool", "tool_call_id": "b", "content": "warm"},
                    {"role": "user", "content": "And?"},
                ]
            },
        ),
    ],
)
def test_a_conversation_is_the_prompt_that_the_same_chat_would_be(
    client: FlaskClient, backend: FakeBackend, ours: Any, theirs: Any
) -> None:
    assert post(client, ours, tools=[TOOL]).status_code == 200
    assert client.post(OPENAI_URL, json={**theirs, "tools": [CHAT_TOOL]}).status_code == 200
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_results_of_tools_stand_in_the_order_of_their_calls(client: FlaskClient, backend: FakeBackend) -> None:
    """The prompt names no calls beside their results."""
    calls = [{"type": "tool_use", "id": i, "name": "weather", "input": {"city": i}} for i in ("a", "b")]
    results = [{"type": "tool_result", "tool_use_id": i, "content": f"of {i}"} for i in ("a", "b")]
    for sent in (results, results[::-1]):
        asked = [*ASKED, {"role": "assistant", "content": calls}, {"role": "user", "content": sent}]
        assert post(client, asked, tools=[TOOL]).status_code == 200
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_a_system_text_may_be_blocks_and_what_changes_each_time_is_left_out(
    client: FlaskClient, backend: FakeBackend
) -> None:
    blocks = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=12345"},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ]
    post(client, ASKED, system=blocks)
    post(client, ASKED, system="Be brief.\nBe kind.")
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_pictures_come_as_base64_in_messages_and_in_results(client: FlaskClient, image: str) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}}
    url = {"type": "image", "source": {"type": "url", "url": f"data:image/png;base64,{image}"}}
    plain = post(client, ASKED).get_json()["usage"]["input_tokens"]
    asked = [{"role": "user", "content": [picture, url, {"type": "text", "text": "Weather?"}]}]
    assert post(client, asked).get_json()["usage"]["input_tokens"] > plain + 20
    counted = client.post(f"{URL}/count_tokens", json={"messages": asked}).get_json()
    assert counted == {"input_tokens": post(client, asked).get_json()["usage"]["input_tokens"]}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [picture]}
    assert post(client, [*ASKED, {"role": "user", "content": [result]}]).status_code == 200


def test_thoughts_text_and_calls_are_blocks(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says(f"<think>Hm.</think>I look. {CALL}{CALL}")
    thinks = {"type": "enabled", "budget_tokens": 1024}
    body = post(client, ASKED, tools=[TOOL], thinking=thinks).get_json()
    assert [block["type"] for block in body["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert body["content"][0]["thinking"] == "Hm." and body["content"][0]["signature"]
    assert body["content"][2]["input"] == {"city": "北京"} and body["stop_reason"] == "tool_use"
    assert body["content"][2]["id"] != body["content"][3]["id"]


def test_a_stream_opens_and_closes_a_block_at_a_time(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says(f"<think>Hm, so.</think>I look. {CALL}")
    thinks = {"type": "adaptive"}
    told = events(post(client, ASKED, tools=[TOOL], thinking=thinks, stream=True).text)
    kinds = [kind for kind, _ in told]
    assert kinds[:2] == ["message_start", "ping"] and kinds[-2:] == ["message_delta", "message_stop"]
    begun = [values["content_block"]["type"] for kind, values in told if kind == "content_block_start"]
    assert begun == ["thinking", "text", "tool_use"]
    grown: dict[int, str] = {}
    is_open: int | None = None
    for kind, values in told:
        if kind == "content_block_start":
            assert is_open is None
            is_open = values["index"]
        elif kind == "content_block_delta":
            assert values["index"] == is_open
            delta = values["delta"]
            text = delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            grown[values["index"]] = grown.get(values["index"], "") + text
        elif kind == "content_block_stop":
            assert values["index"] == is_open
            is_open = None
    assert grown[0] == "Hm, so." and grown[1] == "I look." and json.loads(grown[2]) == {"city": "北京"}
    assert told[0][1]["message"]["usage"]["input_tokens"] > 0
    assert told[-2][1]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert told[-2][1]["usage"]["output_tokens"] > 0


def test_why_an_answer_ended_is_told(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("one two three")
    body = post(client, ASKED, stop_sequences=["nine", " two"]).get_json()
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", " two")
    assert body["content"] == [{"type": "text", "text": "one"}]
    backend.chunks = says("one two", Finish.LENGTH)
    assert post(client, ASKED).get_json()["stop_reason"] == "max_tokens"


def test_what_fails_within_a_stream_is_an_error_event(client: FlaskClient, backend: FakeBackend) -> None:
    backend.error = DeadlineExceeded()
    backend.chunks = backend.chunks[:2]
    kind, values = events(post(client, ASKED, stream=True).text)[-1]
    assert kind == "error" and values["error"]["type"] == "timeout_error" and values["request_id"]


def test_sampling_fields_reach_the_engine(client: FlaskClient, backend: FakeBackend) -> None:
    post(client, ASKED, temperature=0.5, top_p=0.5, top_k=5, max_tokens=7)
    sampling = backend.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.5, 0.5, 5, 7)


def test_an_answer_goes_on_with_what_an_assistant_began(client: FlaskClient, backend: FakeBackend) -> None:
    assert post(client, [*ASKED, {"role": "assistant", "content": "It is a"}]).status_code == 200
    ids = backend.requests[0].input_ids.tolist()
    assert client.post("/v1/detokenize", json={"tokens": ids}).get_json()["prompt"].endswith("It is a")


def test_more_tokens_than_there_is_room_for_are_cut(client: FlaskClient, backend: FakeBackend) -> None:
    """Coding agents ask for as many as the largest of Anthropic's models can say."""
    assert post(client, ASKED, max_tokens=64_000).status_code == 200
    assert 0 < backend.requests[0].sampling.max_tokens < 64_000


@pytest.mark.parametrize(
    "fields", [{"tools": [TOOL], "tool_choice": {"type": "none"}}, {"thinking": {"type": "disabled"}}]
)
def test_what_is_switched_off_is_off(client: FlaskClient, backend: FakeBackend, fields: Any) -> None:
    post(client, ASKED)
    post(client, ASKED, **fields)
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "source"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}, "source"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "weather"}}, "tool_choice"),
        ({"tools": [], "tool_choice": {"type": "tool", "name": "weather"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"stop_sequences": "x"}, "stop_sequences"),
    ],
)
def test_a_refusal_names_the_field_in_anthropics_shape(client: FlaskClient, body: Any, word: str) -> None:
    response = client.post(URL, json={"max_tokens": 9, "messages": ASKED, **body})
    told = response.get_json()
    assert response.status_code == 400 and told["type"] == "error"
    assert told["error"]["type"] == "invalid_request_error" and word in told["error"]["message"], told


def test_a_format_may_stand_where_earlier_clients_send_it(client: FlaskClient, backend: FakeBackend) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        assert post(client, ASKED, **fields).status_code == 200
    first, second = (request.grammar for request in backend.requests)
    assert first and first == second
    both = post(client, ASKED, output_config={"format": wanted}, output_format=wanted)
    assert both.status_code == 400 and "output_format" in both.get_json()["error"]["message"]


def test_what_the_engine_may_refuse_is_named_as_the_route_names_it(client: FlaskClient, backend: FakeBackend) -> None:
    post(client, ASKED, output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})
    post(client, ASKED, tools=[TOOL], tool_choice={"type": "any"})
    by_format, by_tool = (AnswerRules.read(request.grammar) for request in backend.requests)
    assert by_format.text and by_format.text.field == "output_config.format"
    assert by_tool.calls and by_tool.calls.tools[0].field == "tools[0].input_schema"


def test_keys_and_models_are_refused_in_the_same_shape(build: Path, backend: FakeBackend, tmp_path: Path) -> None:
    secret = create_key(tmp_path / "keys.json", "shop")
    client = create_app(GatewaySettings(build=build, keys_file=tmp_path / "keys.json"), backend).test_client()
    kinds = []
    for key, model in (("wrong", None), (secret, "claude"), (secret, None)):
        body = {"max_tokens": 9, "messages": ASKED, "model": model}
        response = client.post(URL, json=body, headers={"x-api-key": key, "anthropic-version": "2023-06-01"})
        kinds.append((response.status_code, response.get_json().get("error", {}).get("type")))
    assert kinds == [(401, "authentication_error"), (404, "not_found_error"), (200, None)]
    lost = client.get(f"{URL}/batches", headers={"x-api-key": secret})
    assert lost.get_json()["type"] == "error" and lost.status_code == 405


USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}


@pytest.mark.parametrize(
    ("role", "block", "missing"),
    [
        ("assistant", USED, "id"),
        ("assistant", USED, "name"),
        ("assistant", USED, "input"),
        ("assistant", {"type": "thinking", "thinking": "Hm."}, "thinking"),
        ("assistant", {"type": "redacted_thinking", "data": "x"}, "data"),
        ("user", {"type": "tool_result", "tool_use_id": "toolu_1"}, "tool_use_id"),
        ("user", {"type": "text", "text": "Hi"}, "text"),
        ("user", {"type": "image", "source": {"type": "url", "url": "x"}}, "source"),
    ],
)
def test_a_block_has_what_its_type_needs(client: FlaskClient, role: str, block: dict[str, Any], missing: str) -> None:
    for wrong in ({name: value for name, value in block.items() if name != missing}, {**block, missing: None}):
        response = post(client, [*ASKED, {"role": role, "content": [wrong]}, *ASKED])
        assert response.status_code == 400 and missing in response.get_json()["error"]["message"]


def test_a_systems_message_may_come_last(client: FlaskClient, backend: FakeBackend) -> None:
    assert post(client, [*ASKED, {"role": "system", "content": "Be brief."}]).status_code == 200
    assert post(client, [{"role": "system", "content": "Be brief."}]).status_code == 400


def test_an_answer_that_says_nothing_has_one_empty_block(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = says("")
    empty = {"type": "text", "text": ""}
    assert post(client, ASKED).get_json()["content"] == [empty]
    told = events(post(client, ASKED, stream=True).text)
    assert [event["content_block"] for name, event in told if name == "content_block_start"] == [empty]
    assert [name for name, _ in told].count("content_block_stop") == 1


def test_a_salt_keeps_what_is_cached_apart(client: FlaskClient, backend: FakeBackend) -> None:
    post(client, ASKED, cache_salt="a")
    post(client, ASKED)
    assert backend.requests[0].cache_salt != 0 == backend.requests[1].cache_salt
