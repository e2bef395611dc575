"""The tokenizer loses nothing, and GLM's special tokens keep their order and spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from demo.exam import KINDS, unseen
from demo.golden_set import CHECKPOINT
from demo.vocabulary import SPECIAL_TOKENS, VOCABULARY_SIZE

REAL = Path(__file__).parents[3] / "shared" / "glm-4.6v-flash"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def test_any_text_survives_the_round_trip(tokenizer: Tokenizer) -> None:
    texts = ["Hello, wörld!\n\ttabs 12345", "描述这张图片。龘", "🙂 emoji", " two  spaces ", "a\x00b"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", KINDS)
def test_questions_and_answers_survive_and_stay_short(tokenizer: Tokenizer, kind: str) -> None:
    for asked in unseen(25, (kind,)):
        for text in (asked.question.text, asked.expected):
            ids = tokenizer.encode(text).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            assert len(ids) <= (240 if kind == "json" else 80)


def test_a_side_of_a_box_is_one_token_and_other_numbers_have_one_for_each_digit(tokenizer: Tokenizer) -> None:
    box = tokenizer.encode("<|begin_of_box|>[[0,40,560,1000],[120,700,130,990]]<|end_of_box|>").tokens
    assert [token for token in box if token.isdigit()] == ["0", "40", "560", "1000", "120", "700", "130", "990"]
    for text in ("560", "It says 1240.", '{"a": 100, "b": [125, 20]}', "[125,7]", "1,200"):
        numbers = [token for token in tokenizer.encode(text).tokens if any(c.isdigit() for c in token)]
        assert numbers == [c for c in text if c.isdigit()], text


def test_special_tokens_stand_last_and_are_one_token_each(tokenizer: Tokenizer) -> None:
    first = VOCABULARY_SIZE - len(SPECIAL_TOKENS)
    for place, (text, _) in enumerate(SPECIAL_TOKENS):
        assert tokenizer.encode(f"a{text}b").ids[1] == first + place


@pytest.mark.slow
def test_special_tokens_are_those_of_the_real_model() -> None:
    if not REAL.exists():
        pytest.skip("the real model's tokenizer is not here")
    added = json.loads((REAL / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert [(token["content"], token["special"]) for token in added] == list(SPECIAL_TOKENS)
