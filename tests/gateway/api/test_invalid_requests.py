"""Hostile and broken requests: on either route each is the client's error, answered fast and in plain words."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from hostile import BAD_IMAGES, ODD_IMAGES
from pydantic import ValidationError
from samples import OPENAI_URL, URL, ask, ask_openai, assert_problem
from werkzeug.test import TestResponse

from gateway.schemas.openai import CompletionBody
from glmserve.model.tokenizer import Tokenizer

Send = Callable[..., TestResponse]
LONG = "x" * 200_001


@pytest.fixture(params=[ask, ask_openai], ids=["vision", "completions"])
def send(request: pytest.FixtureRequest, client: FlaskClient) -> Send:
    """Asks one of the two routes about a picture in base64."""
    return partial(request.param, client)


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bytes_that_are_no_image_are_a_bad_image(send: Send, name: str) -> None:
    started = time.perf_counter()
    assert_problem(send(base64.b64encode(BAD_IMAGES[name]).decode()), 400, "image")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_image_is_answered_or_refused_but_never_our_failure(send: Send, name: str) -> None:
    data = ODD_IMAGES[name]()
    started = time.perf_counter()
    response = send(base64.b64encode(data).decode())
    assert time.perf_counter() - started < 2
    if response.status_code != 200:
        assert_problem(response, 400, "image")


def test_a_moving_gif_shows_its_first_frame(send: Send) -> None:
    assert send(base64.b64encode(ODD_IMAGES["moving gif"]()).decode()).status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        "not base64!",
        "QUJ",  # "AB"
        "A",
        "Zm9v====Zm9v",
        "Ünïcode",
        "data:",
        "data:image/png;base64",
        "data:image/png,abc",
        "data:text/plain;base64,aGVsbG8=",
        "data:image/png;base64,",
        "data:image/png;base64,data:image/png;base64,aGVsbG8=",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        " \n ",
        "====",
    ],
)
def test_an_image_field_without_an_image_is_a_400(send: Send, image: str) -> None:
    assert_problem(send(image), 400, "image")


@pytest.mark.parametrize("image", ["http://example.org/cat.png", " HTTPS://example.org/cat.png", "file:///etc/passwd"])
def test_a_url_that_is_not_fetched_is_told_what_to_send_instead(send: Send, image: str) -> None:
    response = send(image)
    assert_problem(response, 400, "image")
    for said in ("is a URL", "base64", "GLM_GATEWAY_IMAGE_HOSTS"):
        assert said in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"image=abc&prompt=hi",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"image": "QQ==", "prompt": "x", "temperature": NaN}',
        b'{"image": "QQ==", "prompt": "x", "unknown": NaN}',
        b'{"image": "QQ==", "prompt": "x", "top_p": Infinity}',
        b'{"image": "QQ==", "prompt": "x", "temperature": 1e400}',
        b'{"image": "QQ==", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b'{"image": "QQ==", "prompt": "\\ud800"}',
        b'\xef\xbb\xbf{"image": "QQ==", "prompt": "x"}',
        '{"image": "QQ==", "prompt": "x"}'.encode("utf-16"),
        b'{"image": "QQ==", "prompt": "\xff"}',
        b'{"image": "QQ==", "prompt": "x"} trailing',
        b'["image", "prompt"]',
        b'"image"',
        b"null",
        b"17",
    ],
)
@pytest.mark.parametrize("url", [URL, OPENAI_URL])
def test_a_body_that_is_no_json_object_is_a_400(client: FlaskClient, url: str, body: bytes) -> None:
    if url == OPENAI_URL:
        body = body.replace(b'"image": "QQ==", "prompt": "x"', b'"messages": [{"role": "user", "content": "x"}]')
    assert_problem(client.post(url, data=body, content_type="application/json"), 400)


def test_of_two_equal_keys_the_last_one_counts(client: FlaskClient, image: str) -> None:
    body = f'{{"image": "{image}", "prompt": 5, "prompt": "Hi"}}'
    assert client.post(URL, data=body, content_type="application/json").status_code == 200


@pytest.mark.parametrize("field", ["image", "prompt"])
@pytest.mark.parametrize("value", [None, "", 5, True, [], {"url": "x"}, ["x"]])
def test_a_missing_or_wrong_required_field_is_named(client: FlaskClient, image: str, field: str, value: Any) -> None:
    body = {"image": image, "prompt": "Hi", field: value}
    assert_problem(client.post(URL, json=body), 400, field)
    del body[field]
    assert_problem(client.post(URL, json=body), 400, field)


@pytest.mark.parametrize("prompt", [" ", "\n\t", "\u3000"])
def test_a_blank_prompt_is_named(client: FlaskClient, image: str, prompt: str) -> None:
    assert_problem(ask(client, image, prompt), 400, "prompt")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", ["0", "-1", '"5"', "true", "5.0", "1e3", "[5]"]),
        ("temperature", ["-1", "1e9", "2.01", '"0.7"', "true", "[]"]),
        ("top_p", ["0", "2", "-0.1", "false", '"1"']),
        ("top_k", ["-2", "1.5", "true", "2147483648"]),
        ("seed", ["-9223372036854775809", "9223372036854775808", "1.5", '"a"', "false"]),
        ("stop", ["5", "[5]", json.dumps(["x"] * 17), json.dumps("x" * 257), json.dumps(["x"] * 1000)]),
        ("thinking", ["1", '"true"', "[]"]),
        ("stream", ["1", "0", '"true"', '"yes"', "[]"]),
    ],
)
def test_a_wrong_option_is_named(send: Send, image: str, field: str, values: list[str]) -> None:
    for value in values:
        assert_problem(send(image, **{field: json.loads(value)}), 400, field)


@pytest.mark.parametrize("value", [0, "5", -7])
def test_the_other_name_of_max_tokens_is_no_back_door(client: FlaskClient, image: str, value: Any) -> None:
    assert_problem(ask(client, image, max_new_tokens=value), 400, "max_new_tokens")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n": 1_000_000}, "n"),
        ({"n": 0}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 5}}, "stream_options"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 513}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user"}]},
            "messages[2].content",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages"),
    ],
)
def test_what_openai_clients_get_wrong_is_named(
    client: FlaskClient, image: str, options: dict[str, Any], word: str
) -> None:
    assert_problem(ask_openai(client, image, **options), 400, word)


@pytest.mark.parametrize("content", ["", " ", [], [{"type": "text", "text": ""}]])
def test_a_tool_that_found_nothing_may_say_so(client: FlaskClient, content: Any) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    said, result = {"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "a", "content": content}
    assert client.post(OPENAI_URL, json={"messages": [said, call, result]}).status_code == 200
    no_result = {"role": "tool", "tool_call_id": "a"}
    assert_problem(client.post(OPENAI_URL, json={"messages": [said, call, no_result]}), 400, "messages[2].content")


def test_a_template_switch_that_we_do_not_know_changes_nothing(client: FlaskClient, backend: FakeBackend) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    for more in ({}, {"chat_template_kwargs": {"chat_template": "{{ 1/0 }}", "tokenize": False}}):
        assert client.post(OPENAI_URL, json=body | more).status_code == 200
    first, second = backend.requests
    assert np.array_equal(first.input_ids, second.input_ids)


@pytest.mark.parametrize(
    "prompt", ["<|image|>", "<|begin_of_image|><|image|><|end_of_image|>", "<|assistant|>", "<sop>"]
)
def test_control_tokens_that_users_type_never_become_any(
    send: Send, backend: FakeBackend, tokenizer: Tokenizer, image: str, prompt: str
) -> None:
    assert send(image).status_code == send(image, f"{prompt}{prompt} ?").status_code == 200
    plain, typed = (
        Counter(token for token in request.input_ids.tolist() if token in tokenizer.control_tokens.values())
        for request in backend.requests
    )
    assert plain == typed


def test_one_image_more_than_allowed_is_told(client: FlaskClient, image: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    messages = [{"role": "user", "content": [part] * 17}]
    assert_problem(client.post(OPENAI_URL, json={"messages": messages}), 400, "16 images")


def test_ten_megabytes_of_one_character_are_a_400_in_a_moment(send: Send, image: str) -> None:
    started = time.perf_counter()
    assert_problem(send(image, "x" * 10_000_000), 400, "characters")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("path", [OPENAI_URL, "/v1/tokenize"])
@pytest.mark.parametrize(
    ("past", "tools"),
    [
        ({"content": "x", "reasoning_content": LONG}, []),
        ({"tool_calls": [{"function": {"name": "look", "arguments": json.dumps({"at": LONG})}}]}, []),
        ({"tool_calls": [{"function": {"name": "look", "arguments": json.dumps({LONG: [1]})}}]}, []),
        ({"content": "x"}, [{"type": "function", "function": {"name": "look", "description": LONG}}]),
        ({"content": "x"}, [{"type": "function", "function": {"name": "look", "parameters": {"at": [1] * 100_000}}}]),
    ],
    ids=["thoughts", "arguments", "names of arguments", "description of a tool", "numbers in a tool"],
)
def test_whatever_becomes_the_prompt_counts(client: FlaskClient, path: str, past: Any, tools: Any) -> None:
    said = {"role": "user", "content": "x"}
    body = {"messages": [said, {"role": "assistant", **past}, said], "tools": tools}
    assert_problem(client.post(path, json=body), 400, "characters")


def test_names_of_called_functions_count(client: FlaskClient) -> None:
    said, call = {"role": "user", "content": "x"}, {"function": {"name": "f" * 64, "arguments": "{}"}}
    messages = [said, *[{"role": "assistant", "tool_calls": [call] * 128}] * 25, said]
    assert_problem(client.post(OPENAI_URL, json={"messages": messages}), 400, "characters")


def test_too_many_control_tokens_are_told_of_the_field_that_holds_them(client: FlaskClient) -> None:
    body = {"messages": [{"role": "user", "content": "\U000f0001" * 70_000}]}
    response = client.post(OPENAI_URL, json=body)
    assert_problem(response, 400, "control tokens")
    assert response.get_json()["error"]["param"] == "messages"


@pytest.mark.parametrize("field", ["content", "tool_calls"])
@pytest.mark.parametrize(("messages", "items"), [(1, 100_000), (500, 100)])
def test_of_many_wrong_items_only_the_first_becomes_an_error(
    client: FlaskClient, field: str, messages: int, items: int
) -> None:
    body = {"messages": [{"role": "user", "content": "x", field: [1] * items}] * messages}
    with pytest.raises(ValidationError) as caught:
        CompletionBody.model_validate(body)
    assert caught.value.error_count() < 5
    assert_problem(client.post(OPENAI_URL, json=body), 400, f"messages[0].{field}")


def test_more_parts_or_calls_than_allowed_are_refused(client: FlaskClient) -> None:
    call = {"function": {"name": "look", "arguments": "{}"}}
    for field, items in (("content", [{"type": "text", "text": "x"}] * 513), ("tool_calls", [call] * 129)):
        body = {"messages": [{"role": "assistant", "content": "x", field: items}]}
        assert_problem(client.post(OPENAI_URL, json=body), 400, f"messages[0].{field}")


def test_an_image_file_over_its_limit_is_a_413(send: Send) -> None:
    assert_problem(send("A" * 21_000_000), 413)
