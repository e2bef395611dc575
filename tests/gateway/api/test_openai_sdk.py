"""The official OpenAI SDK, against the gateway under its real web server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from live_gateway import live_gateway

from glmserve.build.manifest import CHECKPOINT_FOLDER

openai = pytest.importorskip("openai")
MODEL = "GLM-4.6V-Flash-WEB"
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>"


@pytest.fixture(scope="module")
def sdk(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    with_tools = Path(shutil.copytree(build, tmp_path_factory.mktemp("tools") / "build"))
    template = with_tools / CHECKPOINT_FOLDER / "chat_template.jinja"
    template.write_text("{%- if tools %}{{ tools | tojson }}{% endif -%}" + template.read_text("utf-8"), "utf-8")
    with live_gateway(with_tools) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Say [[{text}]]"}], **more}


def with_image(url: Any, text: str = "Say [[red]]") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}]}


def test_text_is_answered(sdk: Any) -> None:
    done = sdk.chat.completions.create(**says("A red circle."))
    assert done.choices[0].message.content == "A red circle." and done.choices[0].finish_reason == "stop"
    assert done.model == MODEL and done.id.startswith("chatcmpl-") and done.object == "chat.completion"
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.usage.prompt_tokens_details.cached_tokens == 5


def test_an_image_is_an_object_or_a_plain_string(sdk: Any, image: str) -> None:
    url = f"data:image/png;base64,{image}"
    as_object = sdk.chat.completions.create(**with_image({"url": url, "detail": "high"}))
    as_string = sdk.chat.completions.create(**with_image(url))
    assert as_object.choices[0].message.content == as_string.choices[0].message.content == "red"
    assert as_object.usage.prompt_tokens == as_string.usage.prompt_tokens > 20


def test_a_stream_adds_up_and_ends_with_its_usage(sdk: Any) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(sdk.chat.completions.create(**says("One two three.", **options)))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "One two three."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert len({c.id for c in chunks}) == 1


def test_a_stream_without_usage_has_none(sdk: Any) -> None:
    chunks = list(sdk.chat.completions.create(**says("Hi.", stream=True)))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_several_turns_are_one_conversation(sdk: Any) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Say [[bye]]"},
    ]
    assert sdk.chat.completions.create(model=MODEL, messages=turns).choices[0].message.content == "bye"


def test_max_tokens_stop_and_seed_are_heeded(sdk: Any) -> None:
    assert sdk.chat.completions.create(**says("one two three", max_tokens=2)).choices[0].finish_reason == "length"
    assert sdk.chat.completions.create(**says("one two", max_completion_tokens=1)).usage.completion_tokens == 1
    assert (
        sdk.chat.completions.create(**says("one two three", stop=["two"], seed=3)).choices[0].message.content == "one"
    )


def test_log_probabilities_come_for_each_token(sdk: Any) -> None:
    done = sdk.chat.completions.create(**says("A 图", logprobs=True, top_logprobs=1))
    tokens = done.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == "A 图"
    assert tokens[0].logprob == -0.25 and len(tokens[0].top_logprobs) == 1
    chunks = sdk.chat.completions.create(**says("A b", logprobs=True, stream=True))
    assert any(chunk.choices[0].logprobs for chunk in chunks)


def test_thoughts_are_kept_apart(sdk: Any) -> None:
    said = says("<think>hm</think>A cat", extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    message = sdk.chat.completions.create(**said).choices[0].message
    assert (message.content, message.reasoning_content) == ("A cat", "hm")
    deltas = [chunk.choices[0].delta for chunk in sdk.chat.completions.create(**said, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "hm"


def test_tool_calls_are_parsed(sdk: Any) -> None:
    choice = sdk.chat.completions.create(**says(CALL, tools=[TOOL])).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    call = choice.message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "北京"})


def test_tool_calls_are_streamed(sdk: Any) -> None:
    chunks = list(sdk.chat.completions.create(**says(f"Look: {CALL}", tools=[TOOL], stream=True)))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.function.name) for call in calls] == [(0, "weather")]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_result_of_a_tool_goes_back(sdk: Any) -> None:
    first = sdk.chat.completions.create(**says(CALL, tools=[TOOL])).choices[0].message
    turns = [
        {"role": "user", "content": "Weather? [[sunny]]"},
        first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"},
    ]
    assert sdk.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL]).choices[0].message.content == "sunny"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 17}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y"}]}]}, "messages"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    ],
)
def test_a_wrong_request_is_a_bad_request_error_that_names_the_field(sdk: Any, options: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(**{**says("x"), **options})
    assert caught.value.param is not None and caught.value.param.startswith(param)
    assert caught.value.type == "invalid_request_error" and caught.value.request_id


def test_another_model_is_not_found(sdk: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(**says("x") | {"model": "gpt-4"})
    assert caught.value.code == "model_not_found"


def test_the_model_is_listed_with_its_build(sdk: Any) -> None:
    (model,) = sdk.models.list().data
    assert model.id == MODEL and len(model.build) == 16
    assert sdk.models.retrieve(MODEL).created == model.created


def test_tokens_are_counted_as_they_are_when_asked(sdk: Any, image: str) -> None:
    body = with_image(f"data:image/png;base64,{image}")
    counted = sdk.post("/tokenize", cast_to=object, body=body)
    used = sdk.chat.completions.create(**body).usage
    assert counted["count"] == used.prompt_tokens
    assert counted["image_tokens"] == used.prompt_tokens_details.image_tokens > 0
