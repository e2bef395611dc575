"""POST /v1/completions continues a text as it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient

from gateway.triton.backend import Chunk
from glmserve.contract import Finish
from glmserve.errors import DeadlineExceeded
from glmserve.model.tokenizer import Tokenizer

URL = "/v1/completions"
_WHAT_A_PROMPT_IS = "The field prompt must be a string, a list of token ids, or a list of 1 to 32 of these."
Script = Callable[..., list[Chunk]]


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_the_prompt_goes_out_as_it_stands(client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer) -> None:
    body = client.post(URL, json={"prompt": "The sky <|user|>"}).get_json()
    assert backend.requests[0].input_ids.tolist() == tokenizer.encode("The sky <|user|>")
    assert body["object"] == "text_completion" and body["id"].startswith("cmpl-")
    (choice,) = body["choices"]
    assert choice.items() >= {"index": 0, "text": "A red circle.", "logprobs": None, "finish_reason": "stop"}.items()
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


@pytest.mark.parametrize("wrap", [lambda ids: ids, lambda ids: [ids]])
def test_token_ids_are_a_prompt(client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, wrap: Any) -> None:
    ids = tokenizer.encode("The sky is")
    assert client.post(URL, json={"prompt": wrap(ids)}).status_code == 200
    assert backend.requests[0].input_ids.tolist() == ids


def test_white_space_of_a_continuation_is_kept_whole_and_streamed(
    client: FlaskClient, backend: FakeBackend, says: Script
) -> None:
    backend.chunks = says("  blue\n\n and <think>wide \n")
    whole = client.post(URL, json={"prompt": "The sky is"}).get_json()
    assert whole["choices"][0]["text"] == "  blue\n\n and wide \n"
    streamed = events(client.post(URL, json={"prompt": "The sky is", "stream": True}).text)
    assert "".join(event["choices"][0]["text"] for event in streamed) == "  blue\n\n and wide \n"
    assert [event["choices"][0]["finish_reason"] for event in streamed][-1] == "stop"


def test_a_stop_string_cuts_just_before_it(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("one  two three")
    text = client.post(URL, json={"prompt": "Count", "stop": "two"}).get_json()["choices"][0]["text"]
    assert text == "one  "


def test_an_echo_stands_before_the_answer(client: FlaskClient, tokenizer: Tokenizer) -> None:
    for prompt in ("See: ", tokenizer.encode("See: ")):
        body = client.post(URL, json={"prompt": prompt, "echo": True}).get_json()
        assert body["choices"][0]["text"] == "See: A red circle."
    streamed = events(client.post(URL, json={"prompt": "See: ", "echo": True, "stream": True}).text)
    assert "".join(event["choices"][0]["text"] for event in streamed) == "See: A red circle."


def test_usage_comes_last_where_a_stream_asks_for_it(client: FlaskClient) -> None:
    body = {"prompt": "Hi", "stream": True, "stream_options": {"include_usage": True}}
    *others, last = events(client.post(URL, json=body).text)
    assert last["choices"] == [] and last["usage"]["completion_tokens"] > 0
    assert all(event["usage"] is None for event in others)


def test_usage_comes_with_each_chunk_and_ids_with_each_piece_where_a_stream_asks(client: FlaskClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "Hi", "stream": True, "stream_options": options, "return_token_ids": True}
    told = events(client.post(URL, json=body).text)
    counts = [event["usage"]["completion_tokens"] for event in told]
    ids = [token for event in told for choice in event["choices"] for token in choice["token_ids"]]
    assert counts == sorted(counts) and counts[-1] == len(ids) > 0


def test_log_probabilities_are_parallel_lists(
    client: FlaskClient, backend: FakeBackend, says: Script, tokenizer: Tokenizer
) -> None:
    backend.chunks = [
        Chunk(c.tokens, c.finish, logprobs=tuple(((t, -0.5), (t, -0.5)) for t in c.tokens)) for c in says("A red.")
    ]
    told = client.post(URL, json={"prompt": "x", "logprobs": 1}).get_json()["choices"][0]["logprobs"]
    assert "".join(told["tokens"]) == "A red." and set(told["token_logprobs"]) == {-0.5}
    assert all(len(top) == 1 for top in told["top_logprobs"])  # with the token itself
    assert told["text_offset"][0] == 0 and len(told["top_logprobs"]) == len(told["text_offset"])
    assert backend.requests[0].sampling.logprobs and backend.requests[0].sampling.top_logprobs == 1
    asked = {"prompt": "x", "logprobs": 1, "return_tokens_as_token_ids": True}
    spelled = client.post(URL, json=asked).get_json()["choices"][0]["logprobs"]["tokens"]
    assert spelled == [f"token_id:{each}" for each in tokenizer.encode("A red.")]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [10**8]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "<|begin_of_image|><|image|><|end_of_image|>"}, "prompt"),
        ({"prompt": "x " * 150_000}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"best_of": 2}, "best_of"),
        ({"n": 0}, "n"),
        ({"n": 99}, "n"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ["a", []]}, "prompt[1]"),
        ({"prompt": ["a"] * 99}, "prompt"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 99}, "logprobs"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"thinking": True}, "thinking"),
        ({"temperature": 9}, "temperature"),
    ],
)
def test_a_wrong_request_names_the_field(client: FlaskClient, options: dict[str, Any], param: str) -> None:
    response = client.post(URL, json={"prompt": "Hi", **options})
    assert response.status_code == 400, response.text
    assert response.get_json()["error"]["param"].startswith(param)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (["a b"] * 33, _WHAT_A_PROMPT_IS),
        ([[1, 2]] * 33, _WHAT_A_PROMPT_IS),
        (["a", "b", 7], "The field prompt[2] must be text or a list and is 7."),
        ([[1], [2], "a", {}], "The field prompt[3] must be text or a list and is an object."),
        ([1, 2, "a"], 'The field prompt[2] must be a whole number and is "a".'),
        ([1] * 40 + ["a"], 'The field prompt[40] must be a whole number and is "a".'),
    ],
)
def test_what_is_wrong_with_a_list_is_said_of_the_kind_of_list_that_was_sent(
    client: FlaskClient, prompt: list[Any], words: str
) -> None:
    """One text too many was told that the first text must be a number."""
    assert client.post(URL, json={"prompt": prompt}).get_json()["error"]["message"].startswith(words)


def test_several_prompts_are_answered_side_by_side_in_their_order(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    prompts = ["One", "Two two", tokenizer.encode("Three")]
    body = client.post(URL, json={"prompt": prompts, "echo": True}).get_json()
    texts = [(choice["index"], choice["text"]) for choice in body["choices"]]
    assert texts == [(i, f"{said}A red circle.") for i, said in enumerate(("One", "Two two", "Three"))]
    sent = sorted(len(request.input_ids) for request in backend.requests)
    assert body["usage"]["prompt_tokens"] == sum(sent) and len(sent) == 3
    streamed = events(client.post(URL, json={"prompt": prompts, "stream": True}).text)
    grown = dict.fromkeys(range(3), "")
    for event in streamed:
        for choice in event["choices"]:
            grown[choice["index"]] += choice["text"]
    assert set(grown.values()) == {"A red circle."}
    ends = [choice["index"] for event in streamed for choice in event["choices"] if choice["finish_reason"]]
    assert ends == [0, 1, 2]


def test_one_of_several_that_fails_fails_the_request_and_ends_the_others(
    client: FlaskClient, backend: FakeBackend
) -> None:
    backend.error = DeadlineExceeded()
    assert client.post(URL, json={"prompt": ["One", "Two"]}).status_code == 504
    backend.error, backend.beat_s = None, 0.05
    stream = client.post(URL, json={"prompt": ["One", "Two"], "stream": True})
    next(iter(stream.response))
    stream.close()
    assert eventually(lambda: backend.cancelled >= 2)


def test_several_answers_to_one_prompt_are_asked_for_at_once(client: FlaskClient, backend: FakeBackend) -> None:
    ends = (Finish.STOP, Finish.LENGTH)
    backend.chunks = [Chunk(backend.chunks[0].tokens * 2, Finish.STOP, choices=(0, 1), finishes=ends)]
    body = client.post(URL, json={"prompt": "Hi", "n": 2, "best_of": 2}).get_json()
    found = [(choice["index"], choice["finish_reason"]) for choice in body["choices"]]
    assert found == [(0, "stop"), (1, "length")] and backend.requests[0].answers == 2


def test_another_model_is_not_found(client: FlaskClient) -> None:
    assert client.post(URL, json={"prompt": "Hi", "model": "other"}).status_code == 404


def test_each_choice_tells_the_ids_of_its_own_prompt(client: FlaskClient, tokenizer: Tokenizer) -> None:
    prompts = ["The sky", "The sea is"]
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    body = {"prompt": prompts, "return_token_ids": True}
    assert [choice["prompt_token_ids"] for choice in client.post(URL, json=body).get_json()["choices"]] == ids
    told: dict[int, list[int]] = {}
    for event in events(client.post(URL, json={**body, "stream": True}).text):
        for choice in event["choices"]:
            if "prompt_token_ids" in choice:
                assert choice["index"] not in told
                told[choice["index"]] = choice["prompt_token_ids"]
    assert [told[index] for index in sorted(told)] == ids


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_is_truncated_as_a_conversation_is(client: FlaskClient, backend: FakeBackend, side: str) -> None:
    ids = [100, 101, 102, 103]
    client.post(URL, json={"prompt": ids, "truncate_prompt_tokens": 2, "truncation_side": side})
    assert backend.requests[0].input_ids.tolist() == (ids[-2:] if side == "left" else ids[:2])
