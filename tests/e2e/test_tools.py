"""Calls and text of a given shape, asked of a real Triton: whatever the model, the answer is what was asked for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from api_examples import examples
from serving import Service, serving
from shared_builds import build_with_tools

pytestmark = pytest.mark.triton
PLACE = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 999}, "on": {"type": "boolean"}},
    "required": ["x", "on"],
    "additionalProperties": False,
}
DRAW = {
    "type": "function",
    "function": {
        "name": "draw",
        "description": "Draws a shape.",
        "parameters": {
            "type": "object",
            "properties": {
                "shape": {"enum": ["circle", "square"]},
                "label": {"type": ["string", "null"], "maxLength": 12},
                "place": {"$ref": "#/$defs/place"},
            },
            "required": ["shape", "label", "place"],
            "$defs": {"place": PLACE},
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "draw"}}
ASKED = [{"role": "user", "content": "Draw something."}]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving(build_with_tools()) as running:
        yield running


def post(service: Service, **fields: Any) -> str:
    body = {"messages": ASKED, "max_tokens": 400, "seed": 1, **fields}
    address = f"{service.gateway.url}/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


def choice(service: Service, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(post(service, **fields))["choices"][0]
    return found


def streamed(service: Service, **fields: Any) -> tuple[list[dict[str, Any]], str]:
    """The functions called in a stream, and why it ended."""
    lines = [line[6:] for line in post(service, stream=True, **fields).splitlines() if line.startswith("data: {")]
    choices = [json.loads(line)["choices"][0] for line in lines]
    calls = [call for each in choices for call in each["delta"].get("tool_calls", ())]
    assert [call["index"] for call in calls] == [*range(len(calls))]
    return [call["function"] for call in calls], choices[-1]["finish_reason"]


def check_draw(arguments: dict[str, Any]) -> None:
    assert [*arguments] == ["shape", "label", "place"] and arguments["shape"] in ("circle", "square")
    assert arguments["label"] is None or len(arguments["label"]) <= 12
    assert [*arguments["place"]] == ["x", "on"] and 0 <= arguments["place"]["x"] <= 999
    assert isinstance(arguments["place"]["on"], bool)


@pytest.mark.parametrize("temperature", [0, 2])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("picked", ["required", NAMED])
def test_a_call_that_must_be_is_whole_and_matches_its_schema(
    service: Service, temperature: float, seed: int, picked: Any
) -> None:
    fields = {"tools": [DRAW, NOW], "tool_choice": picked, "parallel_tool_calls": False}
    fields |= {"temperature": temperature, "seed": seed}
    answer = choice(service, **fields)
    calls = [call["function"] for call in answer["message"]["tool_calls"]]
    assert len(calls) == 1 and answer["message"]["content"] is None
    assert answer["finish_reason"] == ("tool_calls" if picked == "required" else "stop")
    if calls[0]["name"] == "draw":
        check_draw(json.loads(calls[0]["arguments"]))
    else:
        assert picked == "required" and calls[0] == {"name": "now", "arguments": "{}"}
    assert streamed(service, **fields) == (calls, answer["finish_reason"])


def test_a_result_is_read_and_the_conversation_goes_on(service: Service) -> None:
    said = choice(service, tools=[DRAW, NOW], tool_choice=NAMED)["message"]
    text = [{"type": "text", "text": "done"}, {"type": "text", "text": " well"}]
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": text}
    answer = choice(service, messages=[*ASKED, said, result], tools=[DRAW, NOW], max_tokens=8)
    assert answer["finish_reason"] in ("stop", "length", "tool_calls")


@pytest.mark.parametrize("thinking", [False, True])
def test_strict_tools_and_thoughts_leave_the_model_its_words(service: Service, thinking: bool) -> None:
    strict = {**DRAW, "function": {**DRAW["function"], "strict": True}}  # type: ignore[dict-item]
    answer = choice(service, tools=[strict], thinking=thinking, max_tokens=40)
    for call in answer["message"].get("tool_calls", ()):
        check_draw(json.loads(call["function"]["arguments"]))


@pytest.mark.parametrize("temperature", [0, 2])
@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"structured_outputs": {"choice": ["red", "blue", "grün"]}}, "red|blue|grün"),
        ({"structured_outputs": {"regex": "[a-c]{2}/[0-9]{3}"}}, "[a-c]{2}/[0-9]{3}"),
        ({"guided_grammar": 'start: ("ab" | "c"){3}'}, "(ab|c){3}"),
        ({"response_format": {"type": "grammar", "grammar": 'root ::= "x" [0-9] [0-9]'}}, r"x\d\d"),
        ({"guided_json": {"type": "array", "items": PLACE, "maxItems": 2}}, r'\[(\{"x": ?\d+, ?"on": ?\w+\}(, ?)?)*\]'),
    ],
)
def test_a_text_is_in_the_shape_that_was_asked_for(
    service: Service, fields: dict[str, Any], pattern: str, temperature: float
) -> None:
    answer = choice(service, temperature=temperature, **fields)
    assert re.fullmatch(pattern, answer["message"]["content"]) and answer["finish_reason"] == "stop"


@pytest.mark.parametrize("seed", range(4))
def test_json_is_never_padded_with_blanks(service: Service, seed: int) -> None:
    schema = {"type": "object", "properties": dict.fromkeys("abc", PLACE), "required": ["a", "b", "c"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}}}
    answer = choice(service, response_format=wanted, temperature=2, seed=seed, max_tokens=200)
    assert json.loads(answer["message"]["content"]).keys() == {"a", "b", "c"}
    assert not re.search(r"\s\s|[^,:]\s", answer["message"]["content"])


def test_thoughts_come_before_a_shape_and_apart_from_it(service: Service) -> None:
    fields = {"structured_outputs": {"choice": ["yes", "no"]}, "thinking": True, "max_tokens": 1000}
    message = choice(service, **fields)["message"]
    assert message["content"] in ("yes", "no") or message["reasoning_content"]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("structured_outputs.regex", {"structured_outputs": {"regex": "("}}),
        ("guided_grammar", {"guided_grammar": "start: nothing"}),
        ("response_format", {"response_format": {"type": "json_object", "schema": {"type": 7}}}),
        (
            "tools[1].function.parameters",
            {
                "tools": [DRAW, {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/gone"}}}],
                "tool_choice": "required",
            },
        ),
    ],
)
def test_what_no_grammar_can_be_made_of_is_named(service: Service, param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(service, **fields)
    error = json.loads(caught.value.read())["error"]
    assert caught.value.code == 400 and error["param"] == param and param in error["message"]


@pytest.mark.parametrize(("language", "code"), examples(of_the_engine=True))
def test_an_example_of_the_documentation_gives_what_it_asks_for(service: Service, language: str, code: str) -> None:
    assert language == "python"
    code = code.replace("http://127.0.0.1:5000", service.gateway.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len([ast.literal_eval(line) for line in done.stdout.splitlines()]) >= 2
