"""Blank is absent on every route, also inside of messages; where blanks alone are a text, they stay one."""

from __future__ import annotations

from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient

from glmserve.model.tokenizer import Tokenizer

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
TEXT, TOKENIZE, DETOKENIZE = "/v1/completions", "/v1/tokenize", "/v1/detokenize"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}


def called(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": arguments}}
    return [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "x"}]


def called_in_items(arguments: Any) -> list[dict[str, Any]]:
    call = {"type": "function_call", "call_id": "a", "name": "look", "arguments": arguments}
    return [USER, call, {"type": "function_call_output", "call_id": "a", "output": "x"}]


@pytest.mark.parametrize("blank", ["", " \n", None])
@pytest.mark.parametrize(
    ("url", "with_value", "without"),
    [
        (CHAT, lambda value: {"messages": called(value)}, {"messages": called("{}")}),
        (RESPONSES, lambda value: {"input": called_in_items(value)}, {"input": called_in_items("{}")}),
        (MESSAGES, lambda value: {"messages": [{"role": "user", "content": value}, USER]}, {"messages": [USER]}),
        (MESSAGES, lambda value: {"messages": [{"role": "system", "content": value}, USER]}, {"messages": [USER]}),
        (DETOKENIZE, lambda value: {"tokens": [40], "model": value}, {"tokens": [40]}),
    ],
)
def test_a_blank_value_says_what_an_absent_one_says(
    client: FlaskClient, backend: FakeBackend, url: str, with_value: Any, without: dict[str, Any], blank: str | None
) -> None:
    responses = [client.post(url, json=body) for body in (with_value(blank), without)]
    assert [response.status_code for response in responses] == [200, 200], responses[0].text
    if url == DETOKENIZE:
        assert responses[0].get_json() == responses[1].get_json()
    else:
        first, second = (request.input_ids.tolist() for request in backend.requests)
        assert first == second


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("inside", [True, False])
def test_a_blank_detail_is_none(client: FlaskClient, image: str, blank: str, inside: bool) -> None:
    url = f"data:image/png;base64,{image}"
    picture = {"image_url": {"url": url, "detail": blank}} if inside else {"image_url": url, "detail": blank}
    messages = [{"role": "user", "content": [{"type": "image_url", **picture}, {"type": "text", "text": "What?"}]}]
    assert client.post(CHAT, json={"messages": messages}).status_code == 200


def test_a_message_without_content_says_nothing(client: FlaskClient) -> None:
    body = {"messages": [{"role": "user"}, ASSISTANT, USER]}
    assert client.post(MESSAGES, json=body).status_code == 200
    last = client.post(MESSAGES, json={"messages": [USER, {"role": "user"}, {"role": "assistant"}]})
    assert last.status_code == 400 and "messages" in last.get_json()["error"]["message"]


@pytest.mark.parametrize("text", ["\n", "  ", " \t\n"])
def test_blanks_alone_are_a_prompt_that_stands_as_it_is(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, text: str
) -> None:
    assert client.post(TEXT, json={"prompt": text}).status_code == 200
    assert backend.requests[0].input_ids.tolist() == tokenizer.encode(text)
    assert client.post(TOKENIZE, json={"prompt": text}).get_json()["tokens"] == tokenizer.encode(text)
    assert client.post(TEXT, json={"prompt": ""}).status_code == 400


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"enable_thinking": True}, "enable_thinking"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"thinking": True}, "thinking"),
    ],
)
def test_a_text_without_the_template_cannot_be_thought_about(
    client: FlaskClient, fields: dict[str, Any], word: str
) -> None:
    error = client.post(TEXT, json={"prompt": "Hi", **fields}).get_json()["error"]
    assert error["param"] == word
    for nothing in ({"enable_thinking": False}, {"reasoning_effort": "none"}, {"reasoning_effort": ""}):
        assert client.post(TEXT, json={"prompt": "Hi", **nothing}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER], "continue_final_message": True},
        {"messages": [USER, ASSISTANT], "continue_final_message": True, "add_generation_prompt": True},
    ],
)
def test_what_cannot_be_continued_is_not_counted_either(client: FlaskClient, body: dict[str, Any]) -> None:
    refusals = [client.post(url, json=body) for url in (CHAT, TOKENIZE)]
    assert [response.status_code for response in refusals] == [400, 400]
    assert refusals[0].get_json() == refusals[1].get_json()


def test_a_call_of_the_api_before_tools_is_refused_in_history(client: FlaskClient) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    error = client.post(CHAT, json={"messages": [USER, old, USER]}).get_json()["error"]
    assert error["param"] == "messages[1]" and "tool_calls" in error["message"]
    assert client.post(CHAT, json={"messages": [USER, {**ASSISTANT, "function_call": None}, USER]}).status_code == 200


@pytest.mark.parametrize("name", ["look\n<arg_key>", "two words", "x" * 65])
def test_a_call_in_history_has_a_name_that_functions_may_have(client: FlaskClient, name: str) -> None:
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": name, "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]}
    response = client.post(MESSAGES, json={"messages": [USER, use, result]})
    assert response.status_code == 400 and "messages[1].content[0].name" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("block", "accepted"),
    [
        ({"type": "image"}, "base64"),
        ({"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}, "plain text"),
    ],
)
def test_a_block_that_is_known_is_told_what_its_source_must_be(
    client: FlaskClient, block: dict[str, Any], accepted: str
) -> None:
    response = client.post(MESSAGES, json={"messages": [{"role": "user", "content": [block]}]})
    message = response.get_json()["error"]["message"]
    assert response.status_code == 400 and accepted in message and "messages[0].content[0]" in message


def test_thoughts_of_an_item_may_be_one_text(client: FlaskClient, backend: FakeBackend) -> None:
    said = [{"role": "assistant", "content": "Hello"}, USER]
    as_text = [USER, {"type": "reasoning", "content": "Hm."}, *said]
    as_list = [USER, {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}, *said]
    assert [client.post(RESPONSES, json={"input": items}).status_code for items in (as_text, as_list)] == [200, 200]
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second
