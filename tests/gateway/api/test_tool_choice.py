"""Which calls an answer may make is asked of the engine, and said in the answer, as OpenAI's clients know it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import assert_problem
from tool_calls import call_text
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.answer_rules import AnswerRules, CallRule, OfferedTool
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.limits import MAX_CALLS

Says = Callable[..., list[Chunk]]
URL = "/v1/chat/completions"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def strict(tool: dict[str, Any]) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "strict": True}}


def offered(i: int, tool: dict[str, Any]) -> OfferedTool:
    function = tool["function"]
    field = f"tools[{i}].function.parameters"
    return OfferedTool(function["name"], function.get("parameters", {}), function.get("strict", False), field)


BOTH = (offered(0, WEATHER), offered(1, NOW))
WITHOUT_TOOLS = "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}<|assistant|>"


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def post(client: FlaskClient, tools: Any = (WEATHER, NOW), **more: Any) -> TestResponse:
    body = {"messages": [{"role": "user", "content": "Weather?"}], "tools": tools, **more}
    return client.post(URL, json={name: value for name, value in body.items() if value is not ...})


def rules_sent(backend: FakeBackend) -> AnswerRules | None:
    packed = backend.requests[-1].grammar
    return AnswerRules.read(packed) if packed else None


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, None),
        ({"tool_choice": "required"}, CallRule(BOTH, True, MAX_CALLS, "tool_choice")),
        ({"tool_choice": "required", "parallel_tool_calls": False}, CallRule(BOTH, True, 1, "tool_choice")),
        ({"tool_choice": NAMED}, CallRule(BOTH[:1], True, 1, "tool_choice")),
        ({"tool_choice": allowed("required", "now")}, CallRule(BOTH[1:], True, MAX_CALLS, "tool_choice")),
        ({"tool_choice": allowed("auto", "now")}, CallRule(BOTH[1:], False, MAX_CALLS, "tool_choice")),
        (
            {"tools": [strict(WEATHER), NOW]},
            CallRule((offered(0, strict(WEATHER)), offered(1, NOW)), False, MAX_CALLS, "tools"),
        ),
        ({"tools": [strict(WEATHER), NOW], "tool_choice": "none"}, None),
        ({"tools": [], "tool_choice": "auto"}, None),
        ({"tools": ..., "tool_choice": "none"}, None),
    ],
)
def test_a_choice_of_tools_becomes_the_rule_of_calls(
    client: FlaskClient, backend: FakeBackend, fields: dict[str, Any], rule: CallRule | None
) -> None:
    response = post(client, **fields)
    assert response.status_code == 200, response.text
    assert rules_sent(backend) == (None if rule is None else AnswerRules(calls=rule))


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("tool_choice", {"tools": ..., "tool_choice": "auto"}),
        ("tool_choice", {"tools": ..., "tool_choice": "required"}),
        ("tool_choice", {"tools": ..., "tool_choice": NAMED}),
        ("tool_choice", {"tools": [], "tool_choice": NAMED}),
        ("tool_choice", {"tools": [], "tool_choice": "required"}),
        ("tool_choice", {"tools": [NOW], "tool_choice": NAMED}),
        ("tool_choice", {"tool_choice": allowed("auto", "now", "gone")}),
        ("tool_choice", {"tool_choice": allowed("required")}),
        ("tool_choice", {"tool_choice": "any"}),
        ("tool_choice", {"tool_choice": {"type": "function"}}),
        ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "two words"}}}),
        ("parallel_tool_calls", {"parallel_tool_calls": "no"}),
        ("guided_regex", {"tool_choice": "required", "guided_regex": "a"}),
        ("structured_outputs", {"tool_choice": NAMED, "structured_outputs": {"choice": ["a"]}}),
        ("tools", {"tools": [{**NOW, "type": "custom"}]}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "now", "strict": "yes"}}]}),
    ],
)
def test_a_choice_that_cannot_be_is_named(client: FlaskClient, word: str, fields: dict[str, Any]) -> None:
    assert_problem(post(client, **fields), 400, word)


def test_tools_too_large_to_be_held_to_are_the_callers_mistake(client: FlaskClient) -> None:
    large = {"type": "function", "function": {"name": "f", "parameters": {"enum": ["x" * 1000] * 550}}}
    assert_problem(post(client, [large], tool_choice="required"), 400, "tools")


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_an_answer_in_a_given_shape_may_be_a_call_instead(
    client: FlaskClient, backend: FakeBackend, choice: str
) -> None:
    assert post(client, tool_choice=choice, response_format={"type": "json_object"}).status_code == 200
    rules = rules_sent(backend)
    assert rules and rules.calls and rules.calls.needed == (choice == "required")
    assert (rules.text is None) == (choice == "required")


def test_thoughts_may_come_before_a_call(client: FlaskClient, backend: FakeBackend) -> None:
    for thinking in (True, False):
        post(client, tool_choice="required", thinking=thinking)
        rules = rules_sent(backend)
        assert rules and rules.thinks == thinking


@pytest.mark.parametrize(("choice", "reason"), [(None, "tool_calls"), ("required", "tool_calls"), (NAMED, "stop")])
@pytest.mark.parametrize("stream", [False, True])
def test_the_finish_of_an_answer_with_calls_is_openais(
    client: FlaskClient, backend: FakeBackend, says: Says, choice: Any, reason: str, stream: bool
) -> None:
    backend.chunks = says(call_text("weather", city="1"))
    response = post(client, tool_choice=choice, stream=stream)
    if stream:
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line[6:].startswith("{")]
        choices = [chunk["choices"][0] for chunk in chunks]
        call = next(choice["delta"]["tool_calls"][0] for choice in choices if "tool_calls" in choice["delta"])
        assert choices[-1]["finish_reason"] == reason
    else:
        answer = response.get_json()["choices"][0]
        call = answer["message"]["tool_calls"][0]
        assert answer["finish_reason"] == reason and answer["message"]["content"] is None
    assert call["function"] == {"name": "weather", "arguments": '{"city": "1"}'}


def test_one_call_at_a_time_ends_the_answer_after_the_first(
    client: FlaskClient, backend: FakeBackend, says: Says
) -> None:
    backend.chunks = says("Look:\n" + call_text("weather", city="a") + "\n" + call_text("now") + " and more")
    both = post(client).get_json()["choices"][0]["message"]
    assert len(both["tool_calls"]) == 2
    answer = post(client, parallel_tool_calls=False).get_json()["choices"][0]
    assert [call["function"]["name"] for call in answer["message"]["tool_calls"]] == ["weather"]
    assert answer["message"]["content"] == "Look:" and answer["finish_reason"] == "tool_calls"


def test_whatever_an_answer_holds_can_be_sent_back(client: FlaskClient, backend: FakeBackend, says: Says) -> None:
    for text in (
        call_text('weather\n{"city": "x"}', city="x"),
        call_text("two words"),
        call_text("") + "so",
        call_text("now", x='"\\ud83d"', y="[" * 199 + "]" * 199, z="1e999") * 2,
        "<think>hm</think>" + call_text("weather", city="a\n</arg_value>"),
    ):
        backend.chunks = says(text)
        message = post(client).get_json()["choices"][0]["message"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message.get("tool_calls", [])
        ]
        turns = [{"role": "user", "content": "?"}, message, *results, {"role": "user", "content": "And?"}]
        again = client.post(URL, json={"messages": turns, "tools": [WEATHER]})
        assert again.status_code == 200, again.text


def test_a_call_of_no_function_is_given_as_text(client: FlaskClient, backend: FakeBackend, says: Says) -> None:
    backend.chunks = says(call_text("two words", a="1"))
    answer = post(client).get_json()["choices"][0]
    assert answer["message"]["content"] == call_text("two words", a="1") and answer["finish_reason"] == "stop"
    assert "tool_calls" not in answer["message"]


def test_the_model_is_not_told_what_is_strict(client: FlaskClient, backend: FakeBackend) -> None:
    prompts = []
    for tool in (WEATHER, strict(WEATHER)):
        post(client, [tool])
        prompts.append(backend.requests[-1].input_ids.tolist())
    assert prompts[0] == prompts[1]


def test_a_model_without_tools_says_so(build: Path, backend: FakeBackend, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build, tmp_path / "build"))
    (folder / CHECKPOINT_FOLDER / "chat_template.jinja").write_text(WITHOUT_TOOLS, "utf-8")
    plain = create_app(GatewaySettings(build=folder), backend).test_client()
    assert_problem(post(plain, tool_choice="required"), 400, "takes no tools")


TELLS_OF_FUNCTION = ({"type": "function"}, {"type": "function", "name": "weather"}, {"type": "function", "function": 5})
TELLS_OF_TYPE = ({}, {"type": "tool", "name": "weather"}, {"type": "auto"}, {"type": None}, {"function": {}})


@pytest.mark.parametrize("choice", TELLS_OF_FUNCTION + TELLS_OF_TYPE)
def test_a_choice_of_one_kind_is_not_told_what_another_kind_lacks(client: FlaskClient, choice: dict[str, Any]) -> None:
    error = post(client, tool_choice=choice).get_json()["error"]
    assert error["param"] == f"tool_choice.{'function' if choice in TELLS_OF_FUNCTION else 'type'}", error


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({"tool_choice": {}}, "allowed_tools"),
        ({"tool_choice": {"type": "function"}}, '"function": {"name": "..."}'),
        ({"tool_choice": {"type": "tool"}}, "'function' or 'allowed_tools'"),
        ({"response_format": {}}, "json_schema"),
        ({"thinking": {}}, "disabled"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "letters"),
        ({"bad_words": [" "]}, "not blank"),
        ({"logit_bias": {"a": 1}}, "token ids as keys"),
    ],
)
def test_a_refusal_says_what_is_accepted(client: FlaskClient, fields: dict[str, Any], accepted: str) -> None:
    assert_problem(post(client, **fields), 400, accepted)
