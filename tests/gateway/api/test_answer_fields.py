"""Fields that shape a chat completion: several answers, what they may say, how they begin and how they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, ask, ask_openai, assert_problem
from whole_answers import CHECKPOINT

from gateway.triton.backend import Chunk
from glmserve.contract import Finish
from glmserve.errors import NumericFault
from glmserve.model.tokenizer import Tokenizer

Script = Callable[..., list[Chunk]]
HI = {"messages": [{"role": "user", "content": "Hi"}]}
SIZE = CHECKPOINT.text.vocabulary
RUNNING, STOP, LENGTH = Finish.RUNNING, Finish.STOP, Finish.LENGTH


def sent(client: FlaskClient, backend: FakeBackend, **fields: Any) -> Any:
    """The sampling that the backend is asked for."""
    assert client.post(OPENAI_URL, json=HI | fields).status_code == 200
    return backend.requests[-1].sampling


def completed(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = client.post(OPENAI_URL, json=HI | fields)
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def streamed(client: FlaskClient, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, whose last event is [DONE]."""
    text = client.post(OPENAI_URL, json=HI | {"stream": True, **fields}).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def both(tokenizer: Tokenizer, first: str, second: str) -> list[Chunk]:
    """Two answers side by side: messages that hold tokens of both, and the second one's end before the first one's."""
    one, two = tokenizer.encode(first), tokenizer.encode(second)
    most = max(len(one), len(two))
    chunks = []
    for at in range(most):
        pairs = [(answer[at], number) for number, answer in enumerate((one, two)) if at < len(answer)]
        chunks.append(Chunk(tuple(t for t, _ in pairs), RUNNING, choices=tuple(n for _, n in pairs)))
    chunks.append(Chunk((), RUNNING, choices=(), finishes=(RUNNING, LENGTH)))
    return [*chunks, Chunk((), STOP, (1.0, 2.0, 3.0, 4.0), 5, finishes=(STOP, LENGTH))]


def test_several_answers_are_choices_and_usage_counts_them_all(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    backend.chunks = both(tokenizer, "A blue circle", "<think>hm</think>Two")
    body = completed(client, n=2, return_token_ids=True)
    assert backend.requests[0].answers == 2
    first, second = body["choices"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert (first["message"]["content"], first["finish_reason"]) == ("A blue circle", "stop")
    assert (second["message"]["content"], second["finish_reason"]) == ("Two", "length")
    assert second["message"]["reasoning"] == second["message"]["reasoning_content"] == "hm"
    assert first["token_ids"] == tokenizer.encode("A blue circle")
    counted = len(first["token_ids"]) + len(second["token_ids"])
    assert body["usage"]["completion_tokens"] == counted
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + counted
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 5
    thoughts = len(tokenizer.encode("hm</think>"))
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": thoughts}
    assert body["prompt_token_ids"] == backend.requests[0].input_ids.tolist()


def test_several_answers_stream_side_by_side(client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer) -> None:
    backend.chunks = both(tokenizer, "A blue circle", "Two")
    chunks = streamed(client, n=2, stream_options={"include_usage": True}, return_token_ids=True)
    said, ids, ends = ["", ""], [list[int](), list[int]()], dict[int, str]()
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content") or ""
        ids[choice["index"]] += choice.get("token_ids", [])
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    assert said == ["A blue circle", "Two"] and ends == {0: "stop", 1: "length"}
    assert ids == [tokenizer.encode("A blue circle"), tokenizer.encode("Two")]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:2]] == ["assistant", "assistant"]
    assert "prompt_token_ids" in chunks[0] and chunks[-1]["usage"]["completion_tokens"] == len(ids[0]) + len(ids[1])


def test_answers_that_all_met_a_stop_string_are_cancelled(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    tokens = tokenizer.encode("A blue circle and more")
    backend.chunks = [Chunk((token, token), RUNNING, choices=(0, 1)) for token in tokens * 3]
    body = completed(client, n=2, stop="blue")
    assert [choice["message"]["content"] for choice in body["choices"]] == ["A", "A"]
    assert [choice["stop_reason"] for choice in body["choices"]] == ["blue", "blue"]
    assert backend.cancelled == 1


def test_an_answer_that_stopped_waits_for_the_others(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    backend.chunks = both(tokenizer, "A blue circle", "Two circles and more")
    body = completed(client, n=2, stop="blue")
    assert [choice["message"]["content"] for choice in body["choices"]] == ["A", "Two circles and more"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2.0, "presence_penalty": 2.0}),
        ({"logit_bias": {"7": -100, "8": 0.5}}, {"logit_bias": ((7, -100.0), (8, 0.5))}),
        ({"allowed_token_ids": [5, 3, 5]}, {"allowed_token_ids": (5, 3)}),
        ({"min_tokens": 3}, {"min_tokens": 3}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        ({"max_completion_tokens": 9, "min_tokens": 9}, {"max_tokens": 9, "min_tokens": 9}),
        ({"logit_bias": {}, "bad_words": []}, {"logit_bias": (), "bad_words": ()}),
    ],
)
def test_token_fields_reach_the_backend(
    client: FlaskClient, backend: FakeBackend, image: str, fields: dict[str, Any], wanted: dict[str, Any]
) -> None:
    sampling = sent(client, backend, **fields)
    assert {name: getattr(sampling, name) for name in wanted} == wanted
    if "max_completion_tokens" not in fields:
        ask(client, image, **fields)
        assert {name: getattr(backend.requests[-1].sampling, name) for name in wanted} == wanted


def test_bad_words_are_banned_at_the_beginning_and_after_a_blank(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    words = sent(client, backend, bad_words=["blue circle", " blue"]).bad_words
    assert {tokenizer.decode(list(word)) for word in words} == {"blue circle", " blue circle", "blue", " blue"}
    controls = set(tokenizer.control_tokens.values())
    assert not controls & {token for word in sent(client, backend, bad_words=["<|user|>"]).bad_words for token in word}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"logit_bias": {"7": 101}}, "logit_bias.7"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1, "7": 0, "y": 2}}, "these are none"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias holds the token id 999999; ids go from 0 to"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [1, SIZE]}, f"allowed_token_ids holds the token id {SIZE}; ids go from 0 to {SIZE - 1}"),
        ({"stop_token_ids": [SIZE]}, f"stop_token_ids holds the token id {SIZE}; ids go from 0 to {SIZE - 1}"),
        ({"bad_words": [" "]}, "bad_words"),
        ({"bad_words": "x"}, "bad_words"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens is 6, and max_tokens is 5"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"mm_processor_kwargs": {"min_pixels": 9, "max_pixels": 8}}, "at least 9 and at most 8 pixels"),
        ({"mm_processor_kwargs": {"max_pixels": 0}}, "mm_processor_kwargs.max_pixels"),
        ({"reasoning_effort": "hardest"}, "reasoning_effort"),
        ({"n": 17}, "n must be a whole number from 1 to 16"),
        ({"stream_options": {"include_usage": True}}, "stream_options needs stream"),
        ({"continue_final_message": True}, "continue_final_message needs a last message of role assistant"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "cannot both be true"),
        ({"cache_salt": "x" * 1025}, "cache_salt"),
    ],
)
def test_a_wrong_field_is_named(client: FlaskClient, fields: dict[str, Any], word: str) -> None:
    assert_problem(client.post(OPENAI_URL, json=HI | fields), 400, word)


def test_usage_so_far_comes_with_every_chunk(client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer) -> None:
    backend.chunks = [Chunk((token,), RUNNING) for token in tokenizer.encode("A blue circle")] + [Chunk((), STOP)]
    chunks = streamed(client, stream_options={"include_usage": True, "continuous_usage_stats": True})
    counted = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counted == sorted(counted) and counted[0] == 0 and counted[-1] == len(tokenizer.encode("A blue circle"))
    prompt = len(backend.requests[0].input_ids)
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {prompt}
    assert all(chunk["usage"]["total_tokens"] == prompt + n for chunk, n in zip(chunks, counted, strict=True))


def test_an_error_in_a_stream_is_followed_by_done(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks, backend.error = says()[:-1], NumericFault("not finite")
    chunks = streamed(client)
    assert chunks[-1]["error"]["code"] == "numeric_fault"


def test_thoughts_have_both_names_and_can_be_left_out(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("<think>hm, round</think>A circle")
    message = completed(client, thinking=True)["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == "hm, round"
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(client, thinking=True)]
    for name in ("reasoning", "reasoning_content"):
        assert "".join(delta.get(name, "") for delta in deltas) == "hm, round"
    hidden = completed(client, thinking=True, include_reasoning=False)
    assert hidden["choices"][0]["message"] == {"role": "assistant", "content": "A circle"}
    assert hidden["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"reasoning_effort": "high", "thinking": False}, False),
        ({"reasoning_effort": "high", "enable_thinking": False}, False),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": True, "thinking": False}, False),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": True}}, False),
    ],
)
def test_an_effort_switches_thinking(
    client: FlaskClient, backend: FakeBackend, fields: dict[str, Any], thinks: bool
) -> None:
    for switch in ({"thinking": thinks}, fields):
        assert client.post(OPENAI_URL, json=HI | switch).status_code == 200
    first, second = backend.requests
    np.testing.assert_array_equal(first.input_ids, second.input_ids)


def test_thoughts_are_sent_back_by_either_name(client: FlaskClient, backend: FakeBackend) -> None:
    for name in ("reasoning", "reasoning_content"):
        said = {"role": "assistant", "content": "A", name: "hm, round"}
        completed(client, messages=[*HI["messages"], said])
    first, second = (request.input_ids.tolist() for request in backend.requests)
    assert first == second


def test_a_stop_string_stays_where_that_is_asked_for(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("A blue circle")
    assert completed(client, stop="blue")["choices"][0]["message"]["content"] == "A"
    body = completed(client, stop="blue", include_stop_str_in_output=True)
    assert body["choices"][0]["message"]["content"] == "A blue"
    assert body["choices"][0]["stop_reason"] == "blue"


def test_no_stop_string_counts_before_the_fewest_tokens(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, says: Script
) -> None:
    backend.chunks = says("blue circle blue circle")
    first = len(tokenizer.encode("blue circle"))
    assert completed(client, stop="blue")["choices"][0]["message"]["content"] == ""
    body = completed(client, stop="blue", min_tokens=first)
    assert body["choices"][0]["message"]["content"] == "blue circle"


def test_control_tokens_are_shown_where_they_are_asked_for(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = says("<think>hm</think><|begin_of_box|>A circle<|end_of_box|>")
    assert completed(client)["choices"][0]["message"]["content"] == "A circle"
    message = completed(client, skip_special_tokens=False)["choices"][0]["message"]
    assert message["content"] == "<|begin_of_box|>A circle<|end_of_box|>" and message["reasoning"] == "hm"


def test_an_answer_goes_on_with_the_last_message(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    messages = [*HI["messages"], {"role": "assistant", "content": "A blue "}]
    backend.chunks = [Chunk((token,), RUNNING) for token in tokenizer.encode(" circle")] + [Chunk((), STOP)]
    body = completed(client, messages=messages, continue_final_message=True)
    assert body["choices"][0]["message"]["content"] == " circle"
    prompt = tokenizer.decode(backend.requests[-1].input_ids.tolist())
    assert prompt.rstrip().endswith("A blue")
    body = completed(client, messages=messages, continue_final_message=True, echo=True, add_generation_prompt=False)
    assert body["choices"][0]["message"]["content"] == "A blue  circle"
    chunks = streamed(client, messages=messages, continue_final_message=True, echo=True)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "A blue  circle"


def test_an_assistant_may_speak_last_and_the_prompt_may_ask_nothing(client: FlaskClient, backend: FakeBackend) -> None:
    messages = [*HI["messages"], {"role": "assistant", "content": "A"}]
    completed(client, messages=messages)
    completed(client, messages=messages, add_generation_prompt=False)
    asking, silent = (request.input_ids.tolist() for request in backend.requests)
    assert asking[: len(silent)] == silent and len(asking) > len(silent)


def test_a_prompt_keeps_its_last_tokens(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    completed(client)
    completed(client, truncate_prompt_tokens=3)
    completed(client, truncate_prompt_tokens=10_000)
    whole, cut, same = (request.input_ids.tolist() for request in backend.requests)
    assert cut == whole[-3:] and same == whole
    completed(client, truncate_prompt_tokens=-1, max_tokens=10**9)
    assert backend.requests[-1].input_ids.tolist() == whole
    assert_problem(ask_openai(client, image, truncate_prompt_tokens=3), 400, "a prompt with images cannot be truncated")


def test_a_picture_has_as_many_tokens_as_its_bounds_allow(
    client: FlaskClient, backend: FakeBackend, image: str
) -> None:
    def tokens(detail: str | None = None, **fields: Any) -> int:
        url = {"url": f"data:image/png;base64,{image}", **({"detail": detail} if detail else {})}
        content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "Hi"}]
        body = completed(client, messages=[{"role": "user", "content": content}], **fields)
        request = backend.requests[-1]
        assert request.patches is not None
        assert len(request.patches) == sum(grid.rows * grid.columns for grid in request.grids)
        return int(body["usage"]["prompt_tokens_details"]["image_tokens"])

    plain = tokens()
    assert tokens("high") == tokens("auto") == plain
    assert tokens(mm_processor_kwargs={"max_pixels": 2 * 28 * 28}) < plain
    fewest = {"size": {"shortest_edge": 60_000}}
    assert tokens(mm_processor_kwargs=fewest) > plain
    assert tokens("low") <= plain and tokens("low", mm_processor_kwargs=fewest) > plain


def test_salts_and_answers_keep_their_caches_apart(client: FlaskClient, backend: FakeBackend) -> None:
    for salt in (None, "", "a", "a", "b"):
        completed(client, cache_salt=salt)
    none, blank, first, again, other = (request.cache_salt for request in backend.requests)
    assert none == blank == 0 and first == again != other and 0 not in (first, other)


def test_the_stop_token_that_ended_an_answer_is_its_stop_reason(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = [*says()[:-1], Chunk((), Finish.STOP, finishes=(Finish.STOP,), stop_tokens=(9,))]
    assert completed(client, stop_token_ids=[9])["choices"][0]["stop_reason"] == 9
    assert streamed(client, stop_token_ids=[9])[-1]["choices"][0]["stop_reason"] == 9
    backend.chunks = says()
    assert completed(client, stop_token_ids=[9])["choices"][0]["stop_reason"] is None
    assert streamed(client, stop_token_ids=[9])[-1]["choices"][0]["stop_reason"] is None


def test_the_fewest_tokens_raise_the_default_of_the_most(client: FlaskClient, backend: FakeBackend) -> None:
    completed(client, min_tokens=600)
    completed(client, min_tokens=10)
    assert [request.sampling.max_tokens for request in backend.requests] == [600, 512]
    assert_problem(client.post(OPENAI_URL, json=HI | {"min_tokens": 600, "max_tokens": 512}), 400, "min_tokens")


def test_a_prompt_keeps_the_side_that_is_asked_for(client: FlaskClient, backend: FakeBackend) -> None:
    for fields in ({}, {"truncation_side": "right"}, {"truncation_side": "left"}):
        completed(client, truncate_prompt_tokens=3 if fields else None, **fields)
    whole, right, left = (request.input_ids.tolist() for request in backend.requests)
    assert (right, left) == (whole[:3], whole[-3:])


def test_running_usage_comes_with_the_usage_only(client: FlaskClient) -> None:
    chunks = streamed(client, stream_options={"continuous_usage_stats": True})
    assert all("usage" not in chunk for chunk in chunks)


def test_a_prompt_too_long_has_openais_code(client: FlaskClient) -> None:
    asked = {"messages": [{"role": "user", "content": "a " * 200_000}]}
    assert client.post(OPENAI_URL, json=asked).get_json()["error"]["code"] == "context_length_exceeded"


def test_a_prompt_of_token_ids_is_answered_as_its_messages_are(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = says("<think>It is round.</think>A circle.")
    ids = completed(client, return_token_ids=True)["prompt_token_ids"]
    told = client.post(OPENAI_URL, json={"prompt_token_ids": ids, "return_token_ids": True}).get_json()
    assert told["prompt_token_ids"] == ids and told["usage"]["prompt_tokens"] == len(ids)
    message = told["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("A circle.", "It is round.")


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_token_ids": []},
        {"prompt_token_ids": [10**8]},
        {"prompt_token_ids": [-1]},
        {"prompt_token_ids": "Hi"},
        {"prompt_token_ids": [1], "messages": [{"role": "user", "content": "Hi"}]},
    ],
)
def test_a_prompt_of_what_are_no_token_ids_is_refused(client: FlaskClient, fields: dict[str, Any]) -> None:
    response = client.post(OPENAI_URL, json=fields)
    assert response.status_code == 400 and response.get_json()["error"]["param"].startswith("prompt_token_ids")


def test_a_prompt_of_token_ids_has_no_message_to_go_on_with(client: FlaskClient) -> None:
    response = client.post(OPENAI_URL, json={"prompt_token_ids": [1], "continue_final_message": True})
    assert response.status_code == 400 and response.get_json()["error"]["param"] == "continue_final_message"
