"""No field that changes an answer is dropped in silence: it works, is refused by name, or is told to be unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, URL, ask, ask_openai, assert_problem

from gateway.app import create_app
from gateway.schemas.known_fields import CHANGE_NOTHING, DECLINED
from gateway.schemas.openai import CompletionBody
from gateway.schemas.unknown_fields import unknown_fields
from gateway.schemas.vision import VisionBody
from gateway.settings import GatewaySettings

HI = {"messages": [{"role": "user", "content": "Hi"}]}


def warning(client: FlaskClient, **fields: Any) -> str:
    response = client.post(OPENAI_URL, json=HI | fields)
    assert response.status_code == 200, response.text
    return response.headers.get("Warning", "")


@pytest.mark.parametrize("name", DECLINED)
def test_a_field_of_others_is_refused_with_a_remedy(client: FlaskClient, image: str, name: str) -> None:
    for response in (ask(client, image, **{name: "seven"}), ask_openai(client, image, **{name: "seven"})):
        assert_problem(response, 400, f"The field {name} is not supported here; ")
        assert_problem(response, 400, DECLINED[name].remedy)
    for value in (None, *DECLINED[name].neutral):
        assert ask(client, image, **{name: value}).status_code == 200
        assert warning(client, **{name: value}) == ""


@pytest.mark.parametrize("name", CHANGE_NOTHING)
def test_what_changes_nothing_is_passed_over(client: FlaskClient, image: str, name: str) -> None:
    assert ask(client, image, **{name: {"a": [1]}}).status_code == 200
    assert warning(client, **{name: "x"}) == ""


def test_no_field_is_in_two_lists() -> None:
    ours = {*CompletionBody.model_fields, *VisionBody.model_fields}
    assert not ours & {*DECLINED, *CHANGE_NOTHING} and not set(DECLINED) & set(CHANGE_NOTHING)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_token": 5}, "max_token (do you mean max_tokens?)"),
        ({"temprature": 0}, "temprature (do you mean temperature?)"),
        ({"stop_tokens": [1]}, "stop_tokens (do you mean stop_token_ids?)"),
        ({"whatever": 1}, "whatever"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "stream_options.include_usages"),
        ({"chat_template_kwargs": {"think": True}}, "chat_template_kwargs.think"),
        ({"messages": [{"role": "user", "content": "Hi", "contents": 1}]}, "messages[0].contents"),
        ({"x\r\ny": 1}, "x??y"),
    ],
)
def test_an_unknown_field_is_told_in_a_header(client: FlaskClient, fields: dict[str, Any], told: str) -> None:
    assert told in warning(client, **fields)


def test_a_misspelt_field_of_a_picture_is_told(client: FlaskClient, image: str) -> None:
    url = {"url": f"data:image/png;base64,{image}", "details": "low"}
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "Hi"}]
    told = warning(client, messages=[{"role": "user", "content": content}])
    assert "messages[0].content[0].image_url.details (do you mean detail?)" in told


def test_many_unknown_fields_are_told_in_few_words(client: FlaskClient) -> None:
    told = warning(client, **{f"unheard_of_{i}_{'x' * 200}": 1 for i in range(50)})
    assert len(told) < 600 and "and 45 more" in told


def test_what_sdks_send_back_is_known() -> None:
    said = {"role": "assistant", "content": "A", "refusal": None, "annotations": [], "audio": None, "name": "x"}
    call = {"id": "a", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi", "name": "me"},
        {**said, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True, "description": "d"}}]
    document = {"messages": messages, "tools": tools, "stream": True, "stream_options": {"include_usage": True}}
    assert unknown_fields(document, CompletionBody.model_validate(document)) == ()
    tools[0]["function"]["params"] = 1
    assert unknown_fields(document, CompletionBody.model_validate(document)) == (
        "tools[0].function.params (do you mean parameters?)",
    )


@pytest.mark.parametrize(
    ("policy", "vision", "openai"), [("refuse", 400, 400), ("warn", 400, 200), ("ignore", 200, 200)]
)
def test_the_setting_decides(
    settings: GatewaySettings, backend: FakeBackend, image: str, policy: Any, vision: int, openai: int
) -> None:
    client = create_app(settings.model_copy(update={"unknown_fields": policy}), backend).test_client()
    assert ask(client, image, temprature=0).status_code == vision
    response = ask_openai(client, image, temprature=0)
    assert response.status_code == openai and ("Warning" in response.headers) == (policy == "warn")
    if openai == 400:
        assert response.get_json()["error"]["param"] == "temprature"


def test_forms_are_read_alike(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    form = {"image": image, "prompt": "Hi"}
    assert_problem(client.post(URL, data=form | {"temprature": "0"}), 400, "temprature (do you mean temperature?)")
    assert_problem(client.post(URL, data=form | {"best_of": "3"}), 400, "best_of")
    fields = {"frequency_penalty": "1.5", "logit_bias": json.dumps({"7": -100}), "bad_words": '["x"]', "user": "me"}
    assert client.post(URL, data=form | fields).status_code == 200
    sampling = backend.requests[-1].sampling
    assert (sampling.frequency_penalty, sampling.logit_bias) == (1.5, ((7, -100.0),)) and sampling.bad_words


_VLLM = """
messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n presence_penalty
response_format seed stop stream stream_options temperature top_p tools tool_choice reasoning_effort
thinking_token_budget include_reasoning parallel_tool_calls user use_beam_search top_k min_p repetition_penalty
watermarking length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens
spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs logprob_token_ids
allowed_token_ids bad_words echo add_generation_prompt continue_final_message add_special_tokens documents
chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs structured_outputs priority request_id
session_id return_tokens_as_token_ids return_token_ids routed_experts_prompt_start return_token_offsets
return_prompt_text return_mm_kwargs cache_salt kv_transfer_params ec_transfer_params vllm_xargs repetition_detection
stream_interval
"""
_OPENAI = """
audio function_call functions metadata modalities prediction prompt_cache_key prompt_cache_retention
safety_identifier service_tier store verbosity web_search_options
"""


@pytest.mark.parametrize("name", [*_VLLM.split(), *_OPENAI.split()])
def test_every_field_of_other_servers_is_in_a_list(name: str) -> None:
    assert name in {*CompletionBody.model_fields, *CHANGE_NOTHING, *DECLINED}
