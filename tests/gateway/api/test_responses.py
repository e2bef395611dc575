"""POST /v1/responses: OpenAI's items and events over the same conversation and the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL

from gateway.triton.backend import Chunk
from glmserve.answer_rules import AnswerRules
from glmserve.contract import Finish
from glmserve.errors import DeadlineExceeded

URL = "/v1/responses"
Script = Callable[..., list[Chunk]]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": False}}
CALL = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>"
USER = {"role": "user", "content": "Weather?"}


def post(client: FlaskClient, asked: Any = "Weather?", **more: Any) -> Any:
    return client.post(URL, json={"input": asked, **more})


def events(text: str) -> list[dict[str, Any]]:
    """Each event's data; its name is its type, and the numbers rise by one."""
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_an_answer_is_a_response_with_one_message(client: FlaskClient) -> None:
    body = post(client, metadata={"a": "b"}, temperature=0.5).get_json()
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "A red circle.", "annotations": [], "logprobs": []}]
    assert (body["object"], body["status"], body["error"], body["store"]) == ("response", "completed", None, False)
    assert body["metadata"] == {"a": "b"} and body["temperature"] == 0.5 and body["id"].startswith("resp_")
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("frequency_penalty", 1.5, 9),
        ("presence_penalty", -1, "much"),
        ("logit_bias", {"40": -100}, {"40": 101}),
        ("stop", ["red"], 7),
        ("stop", "red", ["x"] * 99),
        ("stop_token_ids", [40], [-1]),
        ("min_tokens", 3, -1),
        ("ignore_eos", True, "yes"),
    ],
)
def test_fields_that_change_the_tokens_mean_what_they_mean_in_a_chat(
    client: FlaskClient, backend: FakeBackend, field: str, value: Any, wrong: Any
) -> None:
    response = post(client, seed=7, max_output_tokens=50, **{field: value})
    assert response.status_code == 200 and "Warning" not in response.headers, response.text
    body = {"messages": [USER], "seed": 7, "max_tokens": 50, field: value}
    answer = client.post(OPENAI_URL, json=body).get_json()["choices"][0]["message"]["content"]
    first, second = (request.sampling for request in backend.requests)
    assert first == second and response.get_json()["output"][0]["content"][0]["text"] == answer
    refused = post(client, **{field: wrong})
    assert refused.status_code == 400 and refused.get_json()["error"]["param"].startswith(field)


def test_what_the_engine_may_refuse_is_named_as_the_route_names_it(client: FlaskClient, backend: FakeBackend) -> None:
    post(client, text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}})
    post(client, tools=[TOOL], tool_choice="required")
    by_format, by_tool = (AnswerRules.read(request.grammar) for request in backend.requests)
    assert by_format.text and by_format.text.field == "text.format"
    assert by_tool.calls and by_tool.calls.tools[0].field == "tools[0].parameters"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"input": "Weather?"}, [USER]),
        ({"input": [USER], "instructions": "Be brief."}, [{"role": "system", "content": "Be brief."}, USER]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]}]}, [USER]),
        (
            {
                "input": [
                    {"role": "developer", "content": "Be brief."},
                    {**USER, "type": "message"},
                    {
                        "type": "reasoning",
                        "id": "rs_1",
                        "summary": [],
                        "content": [{"type": "reasoning_text", "text": "Ask."}],
                    },
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
                    },
                    {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city": "北京"}'},
                    {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "a", "output": "sunny"},
                    {
                        "type": "function_call_output",
                        "call_id": "b",
                        "output": [{"type": "input_text", "text": "warm"}],
                    },
                    {"role": "user", "content": " "},
                ]
            },
            [
                {"role": "system", "content": "Be brief."},
                USER,
                {
                    "role": "assistant",
                    "content": "I look.",
                    "reasoning_content": "Ask.",
                    "tool_calls": [
                        {"id": i, "type": "function", "function": {"name": "weather", "arguments": arguments}}
                        for i, arguments in (("a", '{"city": "北京"}'), ("b", "{}"))
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "sunny"},
                {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "warm"}]},
            ],
        ),
    ],
)
def test_items_are_the_prompt_that_the_same_chat_would_be(
    client: FlaskClient, backend: FakeBackend, ours: Any, theirs: Any
) -> None:
    assert client.post(URL, json={**ours, "tools": [TOOL]}).status_code == 200
    assert client.post(OPENAI_URL, json={"messages": theirs, "tools": [CHAT_TOOL]}).status_code == 200
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_outputs_of_functions_stand_in_the_order_of_their_calls(client: FlaskClient, backend: FakeBackend) -> None:
    """The prompt names no calls beside their outputs."""
    calls = [
        {"type": "function_call", "call_id": i, "name": "weather", "arguments": f'{{"city": "{i}"}}'}
        for i in ("a", "b")
    ]
    outputs = [{"type": "function_call_output", "call_id": i, "output": f"of {i}"} for i in ("a", "b")]
    for sent in (outputs, outputs[::-1]):
        assert post(client, [USER, *calls, *sent], tools=[TOOL]).status_code == 200
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_pictures_come_in_messages_and_in_outputs(client: FlaskClient, image: str) -> None:
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "auto"}
    plain = post(client).get_json()["usage"]["input_tokens"]
    asked = [{"role": "user", "content": [picture, {"type": "input_text", "text": "Weather?"}]}]
    assert post(client, asked).get_json()["usage"]["input_tokens"] > plain + 10
    assert (
        post(client, [USER, {"type": "function_call_output", "call_id": "a", "output": [picture]}]).status_code == 200
    )


@pytest.mark.parametrize(
    ("reasoning", "kind", "where"),
    [
        ({"effort": "high"}, "reasoning_text", "content"),
        ({"effort": "low", "summary": "auto"}, "summary_text", "summary"),
    ],
)
def test_thoughts_text_and_calls_are_items(
    client: FlaskClient, backend: FakeBackend, says: Script, reasoning: Any, kind: str, where: str
) -> None:
    backend.chunks = says(f"<think>Hm.</think>I look. {CALL}{CALL}")
    body = post(client, tools=[TOOL], reasoning=reasoning).get_json()
    assert [item["type"] for item in body["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert body["output"][0][where] == [{"type": kind, "text": "Hm."}]
    assert json.loads(body["output"][2]["arguments"]) == {"city": "北京"}
    assert body["output"][2]["call_id"] != body["output"][3]["call_id"]
    streamed = events(post(client, tools=[TOOL], reasoning=reasoning, stream=True).text)
    last = streamed[-1]["response"]
    assert [{**item, "id": 0, "call_id": 0} for item in last["output"]] == [
        {**item, "id": 0, "call_id": 0} for item in body["output"]
    ]


def test_each_item_of_a_stream_begins_grows_and_ends(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says(f"<think>Hm, so.</think>I look. {CALL}")
    told = events(post(client, tools=[TOOL], reasoning={"effort": "high"}, stream=True).text)
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    shown = [kind for i, kind in enumerate(kinds) if kind != kinds[i - 1]][2:-1]
    part = ["response.output_item.added", "response.content_part.added"]
    ends = ["response.content_part.done", "response.output_item.done"]
    assert shown == [
        *part,
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        *ends,
        *part,
        "response.output_text.delta",
        "response.output_text.done",
        *ends,
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    for name, field in (("reasoning_text", "text"), ("output_text", "text"), ("function_call_arguments", "arguments")):
        grown = "".join(event["delta"] for event in told if event["type"] == f"response.{name}.delta")
        (done,) = (event[field] for event in told if event["type"] == f"response.{name}.done")
        assert grown == done
    assert [e["output_index"] for e in told if e["type"] == "response.output_item.added"] == [0, 1, 2]


def test_an_answer_that_was_cut_is_incomplete(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("one two", Finish.LENGTH)
    body = post(client, max_output_tokens=2).get_json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete" and backend.requests[0].sampling.max_tokens == 2
    assert events(post(client, stream=True).text)[-1]["type"] == "response.incomplete"


def test_what_fails_within_a_stream_is_an_error_and_a_failed_response(
    client: FlaskClient, backend: FakeBackend
) -> None:
    backend.error = DeadlineExceeded()
    backend.chunks = backend.chunks[:2]
    *_, error, failed = events(post(client, stream=True).text)
    assert (error["type"], error["code"]) == ("error", "deadline_exceeded") and error["message"]
    assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "server_error"


def test_a_format_is_the_answers_grammar(client: FlaskClient, backend: FakeBackend) -> None:
    wanted = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    body = post(client, text={"format": wanted}).get_json()
    response_format = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    client.post(OPENAI_URL, json={"messages": [USER], "response_format": response_format})
    ours, theirs = (request.grammar for request in backend.requests)
    assert ours and body["text"]["format"] == wanted
    assert ours == theirs.replace(b'"field":"response_format"', b'"field":"text.format"')


def test_log_probabilities_come_where_they_are_included(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = [Chunk(c.tokens, c.finish, logprobs=tuple(((t, -0.5),) for t in c.tokens)) for c in says("A red.")]
    told = post(client, include=["message.output_text.logprobs"]).get_json()["output"][0]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in told) == "A red." and backend.requests[0].sampling.logprobs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"role": "system", "content": "Hi"}]}, "input"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}, USER]}, "input[0]"),
        ({"input": [USER, {"type": "function_call_output", "call_id": "a"}]}, "input[1].output"),
        ({"input": [USER, {"type": "function_call", "call_id": "a", "arguments": "{}"}, USER]}, "input[1].name"),
        ({"input": [USER, {"type": "function_call", "name": "f", "arguments": "no"}, USER]}, "input[1].arguments"),
        ({"input": [USER, {"type": "function_call", "name": "f", "arguments": "{}"}, USER]}, "input[1].call_id"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"structured_outputs": {"choice": ["a"]}, "text": {"format": {"type": "json_object"}}}, "structured_outputs"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "parameters": {}}]}, "tools"),
        ({"tools": [{**TOOL, "name": "two words"}]}, "tools[0].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "weather"}}, "tool_choice"),
        ({"tools": [], "tool_choice": {"type": "function", "name": "weather"}}, "tool_choice"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ],
)
def test_a_refusal_names_the_field(client: FlaskClient, body: Any, param: str) -> None:
    response = client.post(URL, json={"input": "Hi", **body})
    error = response.get_json()["error"]
    assert response.status_code == 400 and (error["param"] or "").startswith(param), error
    assert param.partition("[")[0] in error["message"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("required", "required"),
        ({"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
        ),
    ],
)
def test_a_choice_of_tools_means_what_it_means_in_a_chat(
    client: FlaskClient, backend: FakeBackend, ours: Any, theirs: Any
) -> None:
    assert post(client, tools=[TOOL, {**TOOL, "name": "other"}], tool_choice=ours).status_code == 200
    others = {**CHAT_TOOL, "function": {**CHAT_TOOL["function"], "name": "other"}}  # type: ignore[dict-item]
    client.post(OPENAI_URL, json={"messages": [USER], "tools": [CHAT_TOOL, others], "tool_choice": theirs})
    first, second = backend.requests
    named_as_here = second.grammar.replace(b"].function.parameters", b"].parameters")
    assert first.grammar and first.grammar == named_as_here
    assert first.input_ids.tolist() == second.input_ids.tolist()


@pytest.mark.parametrize(
    "last",
    [
        {"role": "assistant", "content": "It is"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Greet."}]},
    ],
)
def test_what_the_assistant_said_may_come_last(client: FlaskClient, last: Any) -> None:
    for asked in ([USER, last], [last]):
        assert client.post(URL, json={"input": asked}).get_json()["status"] == "completed"


def test_tokens_of_an_input_are_counted_as_they_are_asked_with(client: FlaskClient) -> None:
    body = {"input": [USER], "instructions": "Be brief.", "tools": [TOOL]}
    counted = client.post(f"{URL}/input_tokens", json=body)
    asked = client.post(URL, json=body).get_json()
    assert counted.get_json() == {"object": "response.input_tokens", "input_tokens": asked["usage"]["input_tokens"]}
    assert "temprature" in client.post(f"{URL}/input_tokens", json={**body, "temprature": 1}).headers["Warning"]


def test_the_templates_own_switch_counts_more_than_an_effort(client: FlaskClient, backend: FakeBackend) -> None:
    for fields in ({"reasoning": {"effort": "high"}}, {"chat_template_kwargs": {"enable_thinking": True}}):
        assert client.post(URL, json={"input": "Hi", "reasoning": {"effort": "none"}, **fields}).status_code == 200
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second
