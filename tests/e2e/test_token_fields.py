"""What acts on tokens, asked of a real Triton: several answers, biases, penalties, banned and allowed tokens."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from serving import Service
from test_engine_features import CHECKPOINT, TOKENIZER, asked, backend, tokens_of  # noqa: F401

from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.contract import Finish

pytestmark = pytest.mark.triton
QUESTION = "Describe the picture."
EOS = set(CHECKPOINT.eos_token_ids)


def said(chunks: list[Chunk], number: int) -> list[int]:
    pairs = [pair for chunk in chunks for pair in zip(chunk.tokens, chunk.choices, strict=True)]
    return [token for token, choice in pairs if choice == number]


def test_several_answers_are_those_of_the_next_seeds_from_one_prompt(backend: TritonBackend) -> None:  # noqa: F811
    plain = asked(9101, QUESTION, temperature=1.5, logprobs=True)

    def seeded(seed: int) -> GenerateRequest:
        return replace(plain, sampling=replace(plain.sampling, seed=seed))

    chunks = list(backend.generate(replace(seeded(11), answers=3)))
    assert chunks[-1].cached_tokens == 0 and Finish.RUNNING not in chunks[-1].finishes
    answers = [said(chunks, number) for number in range(3)]
    for number, answer in enumerate(answers):
        assert tokens_of(list(backend.generate(seeded(11 + number)))) == answer
    assert len({tuple(answer) for answer in answers}) > 1
    assert sum(len(chunk.logprobs) for chunk in chunks) == sum(map(len, answers))


def test_tokens_are_banned_allowed_and_biased(backend: TritonBackend) -> None:  # noqa: F811
    plain = tokens_of(list(backend.generate(asked(9102, QUESTION))))
    assert len(plain) > 3
    word = tuple(plain[:2])
    banned = tokens_of(list(backend.generate(asked(9102, QUESTION, bad_words=(word,)))))
    assert banned[0] == plain[0] and not any(tuple(banned[at : at + 2]) == word for at in range(len(banned)))
    first = asked(9102, QUESTION, max_tokens=1, logit_bias=((plain[0], -100.0),))
    assert tokens_of(list(backend.generate(first))) != plain[:1]
    allowed = tuple(plain[:3])
    only = tokens_of(list(backend.generate(asked(9102, QUESTION, max_tokens=20, allowed_token_ids=allowed))))
    assert len(only) == 20 and set(only) <= set(allowed)


def test_an_answer_has_its_fewest_tokens_and_ends_are_ignored_where_asked_for(backend: TritonBackend) -> None:  # noqa: F811
    plain = tokens_of(list(backend.generate(asked(9103, QUESTION))))
    longer = tokens_of(list(backend.generate(asked(9103, QUESTION, min_tokens=len(plain) + 5))))
    assert len(longer) >= len(plain) + 5 and longer[: len(plain)] == plain and not EOS & set(longer)
    on = tokens_of(list(backend.generate(asked(9103, QUESTION, max_tokens=len(plain) + 4, ignore_eos=True))))
    assert len(on) == len(plain) + 4 and on[: len(plain)] == plain and on[len(plain)] in EOS


def test_penalties_are_openais_formula(backend: TritonBackend) -> None:  # noqa: F811
    """Each token drawn greedily is the likeliest by the model's own log-probabilities less the penalties."""
    frequency, presence = 1.25, 0.5
    penalties = {"frequency_penalty": frequency, "presence_penalty": presence}
    changed = 0
    for seed in range(9104, 9116):
        chunks = list(
            backend.generate(asked(seed, QUESTION, max_tokens=24, logprobs=True, top_logprobs=20, **penalties))
        )
        answer: list[int] = []
        for token, ranked in zip(tokens_of(chunks), [r for chunk in chunks for r in chunk.logprobs], strict=True):
            scores = {
                other: value - frequency * answer.count(other) - presence * (other in answer) for other, value in ranked
            }
            assert scores[token] == pytest.approx(max(scores.values()), abs=1e-3)
            answer.append(token)
        changed += answer != tokens_of(list(backend.generate(asked(seed, QUESTION, max_tokens=24))))
    assert changed, "the penalties changed nothing here"


def test_choices_come_through_the_gateway_whole_and_streamed(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "n": 3, "seed": 4, "temperature": 1, "max_tokens": 12}

    def post(**more: Any) -> str:
        request = urllib.request.Request(
            f"{service.gateway.url}/v1/chat/completions",
            json.dumps(body | more).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return str(reply.read().decode())

    whole = json.loads(post())
    contents = [choice["message"]["content"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2] and all(contents)
    events = [line[6:] for line in post(stream=True).split("\n\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    streamed = ["", "", ""]
    for event in map(json.loads, events):
        (choice,) = event["choices"]
        streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert streamed == contents
    ids = np.array(json.loads(post(return_token_ids=True, n=1))["choices"][0]["token_ids"])
    assert TOKENIZER.decode(ids.tolist()).strip() == contents[0]
