"""How an answer is to be generated: each field reaches the backend, and each mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import ask, ask_openai, assert_problem

from gateway.triton.backend import Chunk
from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.contract import Finish
from glmserve.model.tokenizer import Tokenizer

SCHEMA = {"type": "object", "properties": {"颜色": {"type": "string"}}}


def test_sampling_fields_reach_the_backend(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image, min_p=0.1, repetition_penalty=1.2, stop_token_ids=[7, 9])
    sampling = backend.requests[0].sampling
    assert (sampling.min_p, sampling.repetition_penalty, sampling.stop_token_ids) == (0.1, 1.2, (7, 9))


def test_unset_fields_ask_for_nothing_special(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image, min_p=None, repetition_penalty=None, stop_token_ids=None, response_format=None, logprobs=None)
    sampling = backend.requests[0].sampling
    assert (sampling.min_p, sampling.repetition_penalty, sampling.stop_token_ids) == (0.0, 1.0, ())
    assert (backend.requests[0].grammar, sampling.logprobs, sampling.top_logprobs) == (b"", False, 0)


@pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
@pytest.mark.parametrize("value", [32_769, 2**63, 10**30])
def test_more_tokens_than_any_answer_has_are_cut(
    client: FlaskClient, backend: FakeBackend, image: str, name: str, value: int
) -> None:
    ask(client, image, max_tokens=32_768)
    ask(client, image, **{name: value})
    most, cut = (request.sampling.max_tokens for request in backend.requests)
    assert most == cut


def test_minus_one_is_an_absent_top_k_or_seed(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    for _ in range(2):
        ask(client, image, top_k=-1, seed=-1)
    ask(client, image, seed=-(2**63))
    first, second, last = (request.sampling for request in backend.requests)
    assert first.top_k == 0 and first.seed >= 0 and first.seed != second.seed and last.seed == -(2**63)


@pytest.mark.parametrize(
    ("wanted", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}, SCHEMA),
    ],
)
def test_a_response_format_becomes_a_grammar(
    client: FlaskClient, backend: FakeBackend, image: str, wanted: dict[str, Any], grammar: Any
) -> None:
    assert ask(client, image, response_format=wanted).status_code == 200
    sent = backend.requests[0].grammar
    rules = AnswerRules.read(sent) if sent else None
    assert rules == (None if grammar is None else AnswerRules(TextRule("json_schema", grammar, "response_format")))


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("min_p", {"min_p": 1.1}),
        ("min_p", {"min_p": "0"}),
        ("repetition_penalty", {"repetition_penalty": 0}),
        ("repetition_penalty", {"repetition_penalty": 11}),
        ("stop_token_ids", {"stop_token_ids": [-1]}),
        ("stop_token_ids", {"stop_token_ids": list(range(65))}),
        ("logprobs", {"logprobs": 3}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("response_format", {"response_format": "json"}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}),
        ("65536", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": "x" * 65536}}}}),
    ],
)
def test_a_wrong_field_is_named(client: FlaskClient, image: str, field: str, options: dict[str, Any]) -> None:
    assert_problem(ask(client, image, **options), 400, field)


@pytest.mark.parametrize("switch", [{"thinking": True}, {"chat_template_kwargs": {"enable_thinking": True}}])
def test_an_answer_in_a_given_shape_may_be_thought_about_first(
    client: FlaskClient, backend: FakeBackend, image: str, switch: dict[str, Any]
) -> None:
    assert ask_openai(client, image, response_format={"type": "json_object"}, **switch).status_code == 200
    assert AnswerRules.read(backend.requests[0].grammar).thinks


def test_log_probabilities_come_with_text_and_bytes_of_what_is_said(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, says: Callable[..., list[Chunk]], image: str
) -> None:
    backend.chunks = [
        Chunk(chunk.tokens, chunk.finish, logprobs=tuple(((t, -0.5), (t, -0.5), (5, -2.0)) for t in chunk.tokens))
        for chunk in says("<think>hm</think>A 图")
    ]
    body = ask(client, image, logprobs=True, top_logprobs=2).get_json()
    sampling = backend.requests[0].sampling
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 2)
    said = body["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in said).decode() == body["result"] == "A 图"
    assert {entry["logprob"] for entry in said} == {-0.5}
    assert all(len(entry["top_logprobs"]) == 2 for entry in said)


def test_cached_tokens_and_timings_are_told(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks[-1] = Chunk((), Finish.STOP, (1.0, 2.0, 3.0, 4.0), cached_tokens=5)
    timings = ask(client, image).get_json()["timings"]
    assert [timings[f"{stage}_ms"] for stage in ("queue", "vision", "prefill", "decode")] == [1, 2, 3, 4]
    assert 0 <= timings["first_token_ms"] <= timings["total_ms"]
