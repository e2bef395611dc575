"""Messages as real clients send them: blanks are absent, parts have several names, each mistake has its sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, URL, ask, assert_problem
from werkzeug.test import TestResponse

from glmserve.model.tokenizer import Tokenizer

Post = Callable[[list[Any]], TestResponse]
QUESTION = {"role": "user", "content": "What is it?"}
BLANK = [
    None,
    "",
    "  \n",
    [],
    [{"type": "text", "text": ""}],
    [{"type": "text", "text": " "}],
    [{"type": "text", "text": None}],
]


@pytest.fixture
def post(client: FlaskClient) -> Post:
    return lambda messages: client.post(OPENAI_URL, json={"messages": messages, "seed": 1})


def _ids_of_last_two(backend: FakeBackend) -> tuple[list[int], list[int]]:
    first, second = backend.requests[-2:]
    return first.input_ids.tolist(), second.input_ids.tolist()


@pytest.mark.parametrize("content", BLANK)
@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_a_turn_that_says_nothing_is_absent(post: Post, backend: FakeBackend, role: str, content: Any) -> None:
    said = [QUESTION, {"role": "assistant", "content": "A circle."}, QUESTION]
    assert post(said).status_code == 200
    assert post([{"role": role, "content": content}, *said]).status_code == 200
    first, second = _ids_of_last_two(backend)
    assert first == second


def test_a_message_without_content_is_absent_too(post: Post) -> None:
    assert post([{"role": "system"}, QUESTION]).status_code == 200


@pytest.mark.parametrize("content", BLANK)
def test_a_last_question_that_asks_nothing_is_named(post: Post, content: Any) -> None:
    messages = [QUESTION, {"role": "assistant", "content": "A circle."}, {"role": "user", "content": content}]
    assert_problem(post(messages), 400, "messages[2].content must hold text or an image")
    assert_problem(post([{"role": "user", "content": content}]), 400, "messages[0].content")


def test_a_picture_followed_by_a_blank_question_is_answered(post: Post, image: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    assert post([{"role": "user", "content": [picture]}, {"role": "user", "content": ""}]).status_code == 200


@pytest.mark.parametrize("field", ["model", "stop", "system", "question", "text", "image"])
@pytest.mark.parametrize("blank", ["", None, "  "])
def test_blank_fields_are_absent(
    client: FlaskClient, backend: FakeBackend, image: str, field: str, blank: str | None
) -> None:
    if field == "stop" and blank == "  ":
        return  # an answer may well end at two blanks
    body = {"images": [image], "prompt": "Hi", "seed": 1}
    assert client.post(URL, json=body).status_code == client.post(URL, json={**body, field: blank}).status_code == 200
    first, second = backend.requests
    assert first.sampling == second.sampling and np.array_equal(first.input_ids, second.input_ids)


def test_blank_items_of_lists_are_absent(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    body = {"images": [image, ""], "prompt": "Hi", "stop": ["", "round", ""]}
    assert client.post(URL, json=body).status_code == 200
    assert len(backend.requests[0].grids) == 1
    assert client.post(URL, json={"image": image, "images": [], "prompt": "Hi", "stop": []}).status_code == 200
    assert client.post(URL, json={"image": image, "images": [""], "prompt": "Hi", "stop": [""]}).status_code == 200


def test_the_openai_route_takes_blank_fields_too(client: FlaskClient) -> None:
    blanks = {"model": "", "stop": "", "tool_choice": "", "tools": [], "user": "", "seed": "", "response_format": None}
    assert client.post(OPENAI_URL, json={"messages": [QUESTION], **blanks}).status_code == 200


def test_blanks_alone_may_stop_an_answer(client: FlaskClient, image: str) -> None:
    assert ask(client, image, stop=" ").get_json()["result"] == "A"


def test_a_conversation_that_the_assistant_begins_is_rendered_as_the_template_does(
    post: Post, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    assert post([{"role": "assistant", "content": "Show me one."}, QUESTION]).status_code == 200
    assert tokenizer.decode(backend.requests[0].input_ids.tolist()) == (
        "[gMASK]<sop><|assistant|>\n<think></think>\nShow me one."
        "<|user|>\nWhat is it?/nothink<|assistant|>\n<think></think>\n"
    )


def test_a_system_text_and_then_the_assistant_is_fine(post: Post) -> None:
    assert (
        post([{"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}, QUESTION]).status_code == 200
    )


def test_parts_have_the_names_of_both_of_openais_apis(post: Post, backend: FakeBackend, image: str) -> None:
    url = f"data:image/png;base64,{image}"
    ways: list[list[Any]] = [
        [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Hi"}],
        [{"type": "input_image", "image_url": url, "detail": "auto"}, {"type": "input_text", "text": "Hi"}],
        [{"type": "image_url", "image_url": url}, "Hi"],
        [{"image_url": {"url": url}}, {"text": "Hi"}],
        [{"type": "input_image", "image_url": url}, {"type": "output_text", "text": "Hi"}],
    ]
    for content in ways:
        assert post([{"role": "user", "content": content}]).status_code == 200, content
    first, *others = backend.requests
    assert all(np.array_equal(first.input_ids, other.input_ids) for other in others)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("input_audio", "a text part"),
        ("audio_url", "a text part"),
        ("file", "image_url part"),
        ("input_file", "image_url part"),
        ("image", '"type": "image_url"'),
        ("tool_result", "role tool"),
        ("tool_use", "tool_calls"),
        ("thinking", "reasoning_content"),
    ],
)
def test_parts_that_are_not_read_are_named_with_what_to_send_instead(post: Post, kind: str, remedy: str) -> None:
    response = post([QUESTION, {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind, kind: "y"}]}])
    assert_problem(response, 400, remedy)
    error = response.get_json()["error"]
    assert error["param"] == "messages[1].content[1]" and f"of type {kind}:" in error["message"]


USER, CALLED = "user", {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "[1]"}}]}


@pytest.mark.parametrize(
    ("message", "param", "sentence"),
    [
        ({"role": "bot", "content": "x"}, ".role", "is \"bot\"; accepted: 'system'"),
        ({"role": 5, "content": "x"}, ".role", "is 5; accepted: 'system'"),
        ({"content": "x"}, ".role", "messages[1].role is missing"),
        ("x", "", 'messages[1] must be an object and is "x"'),
        ({"role": USER, "content": 5}, ".content", "must be text or a list and is 5"),
        ({"role": USER, "content": {"type": "text"}}, ".content", "must be text or a list and is an object"),
        ({"role": USER, "content": [5]}, ".content[0]", "must be an object and is 5"),
        ({"role": USER, "content": [{"type": "sound"}]}, ".content[0].type", "is \"sound\"; accepted: 'text'"),
        ({"role": USER, "content": [{"kind": "text"}]}, ".content[0].type", "is missing"),
        ({"role": USER, "content": [{"type": "text", "text": 5}]}, ".content[0].text", "must be text and is 5"),
        ({"role": USER, "content": [{"type": "text"}]}, ".content[0].text", "of type text but has no text"),
        ({"role": USER, "content": [{"type": "image_url"}]}, ".content[0].image_url", "but has no image_url"),
        (
            {"role": USER, "content": [{"type": "input_image", "file_id": "x"}]},
            ".content[0].image_url",
            "but has no image_url",
        ),
        (
            {"role": USER, "content": [{"type": "image_url", "image_url": {"url": ""}}]},
            ".content[0].image_url.url",
            "is empty",
        ),
        (
            {"role": USER, "content": [{"type": "image_url", "image_url": {"uri": "x"}}]},
            ".content[0].image_url.url",
            "is missing",
        ),
        (CALLED, ".tool_calls[0].function.arguments", "must be a JSON object as text and is a list"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{x"}}]},
            ".tool_calls[0].function.arguments",
            "must be a JSON object as text and is no JSON",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": 5}}]},
            ".tool_calls[0].function.arguments",
            "must be text or an object and is 5",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
            ".tool_calls[0].function.name",
            "is missing",
        ),
        ({"role": "assistant", "tool_calls": [{"name": "look"}]}, ".tool_calls[0].function", "is missing"),
        (
            {"role": "assistant", "content": "x" * 10, "tool_calls": {}},
            ".tool_calls",
            "must be a list and is an object",
        ),
    ],
)
def test_each_mistake_names_its_place_what_came_and_what_is_accepted(
    post: Post, message: Any, param: str, sentence: str
) -> None:
    response = post([QUESTION, message, QUESTION])
    assert_problem(response, 400, sentence)
    assert response.get_json()["error"]["param"] == f"messages[1]{param}"


def test_a_long_wrong_value_is_shown_in_part(post: Post) -> None:
    response = post([{"role": "x" * 10_000, "content": "x"}])
    assert_problem(response, 400, 'messages[0].role is "' + "x" * 39)
    assert len(response.text) < 400


@pytest.mark.parametrize("arguments", ['{"at": 1}', {"at": 1}])
def test_arguments_may_be_text_or_an_object(post: Post, backend: FakeBackend, arguments: Any) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": arguments}}]}
    assert post([QUESTION, call, {"role": "tool", "content": "x"}]).status_code == 200
