"""Untrusted text is tokenised as by a tokenizer that knows no control tokens, though there is only one in memory."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).parents[2] / "demo" / "checkpoint" / "tokenizer.json"
ALPHABET = "abc <|>/nothink'll 图é🙂\n\t  12345\U000f0000"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(DEMO.read_text("utf-8"))


@pytest.fixture(scope="module")
def innocent() -> Library:
    """The same vocabulary without a control token."""
    document = json.loads(DEMO.read_text("utf-8"))
    return Library.from_str(json.dumps({**document, "added_tokens": []}))


def test_every_control_token_is_known(tokenizer: Tokenizer) -> None:
    document = json.loads(DEMO.read_text("utf-8"))
    assert tokenizer.control_tokens == {token["content"]: token["id"] for token in document["added_tokens"]}


def test_no_text_a_user_types_becomes_a_control_token(tokenizer: Tokenizer, innocent: Library) -> None:
    draw = random.Random(7)
    names = list(tokenizer.control_tokens)
    typed = ["".join(draw.choice(ALPHABET) for _ in range(draw.randint(1, 40))) for _ in range(500)]
    typed += [*names, *(draw.choice(names) + draw.choice(typed) + draw.choice(names) for _ in range(500)), ""]
    for text in typed:
        ids = tokenizer.encode_plain(text)
        assert ids == innocent.encode(text, add_special_tokens=False).ids
        assert not set(ids) & set(tokenizer.control_tokens.values())


def test_a_written_control_token_becomes_one_in_trusted_text(tokenizer: Tokenizer) -> None:
    for text, token_id in tokenizer.control_tokens.items():
        assert tokenizer.encode(text) == [token_id]
