"""The checkpoint stays small, says the right ids, and its golden answers are right."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from typing import Any

import pytest
from PIL import Image
from tokenizers import Tokenizer

from demo.exam import CHAT_KINDS, PICTURE_KINDS, ask, drawn_image
from demo.golden_set import (
    CANARY_SEED,
    CHECKPOINT,
    GOLDEN,
    GoldenQuestion,
    golden_chats,
    golden_questions,
    parity_cases,
)
from demo.lessons.wordings import LANGUAGES
from glmserve.model.config import Checkpoint

MOST_BYTES = 12_000_000
MOST_GOLDEN_BYTES = 2_000_000


def tensors() -> dict[str, dict[str, Any]]:
    """The header of model.safetensors: name -> dtype and shape."""
    with (CHECKPOINT / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def test_the_weights_are_4_to_6_million_in_fp16_and_at_most_12_megabytes() -> None:
    header = tensors()
    parameters = 0
    for tensor in header.values():
        assert tensor["dtype"] == "F16"
        begin, end = tensor["data_offsets"]
        parameters += (end - begin) // 2
    assert 4_000_000 <= parameters <= 6_000_000
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= MOST_BYTES
    assert "lm_head.weight" in header, "the real model's output layer is not tied to its embeddings"


def test_it_says_that_it_is_a_demo() -> None:
    assert Checkpoint.read(CHECKPOINT).is_demo


def test_the_ids_in_the_config_are_the_tokenizers() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    for field, text in {
        "image_token_id": "<|image|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_token_id": "<|video|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    }.items():
        assert config[field] == tokenizer.token_to_id(text)
    ends = [tokenizer.token_to_id(text) for text in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    assert config["text_config"]["eos_token_id"] == ends
    assert 0 <= config["text_config"]["vocab_size"] - tokenizer.get_vocab_size() < 64
    assert config["text_config"]["vocab_size"] % 64 == 0, "kernels of GPUs want whole blocks of columns"
    generation = json.loads((CHECKPOINT / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == ends
    assert generation["do_sample"] is False


# How often a kind is right at least: the golden set has worn pictures, those of a second drawing program, and phrasings
# that no training has seen.
FLOORS = {"turns": 0.75, "pair": 0.65, "video": 0.8, "box": 0.8}
HARD = ("turns", "pair", "video")


def all_golden() -> list[GoldenQuestion]:
    return [*golden_questions(), *golden_chats()]


def test_golden_answers_are_right() -> None:
    questions = all_golden()
    right: dict[str, list[bool]] = defaultdict(list)
    for question in questions:
        right[question.kind].append(question.is_right)
    assert sum(question.has_image for question in golden_questions()) >= 200
    assert len(questions) >= 300
    known = [question for question in questions if question.kind not in HARD]
    assert sum(question.is_right for question in known) >= 0.95 * len(known)
    for kind, outcomes in right.items():
        assert sum(outcomes) / len(outcomes) >= FLOORS.get(kind, 0.85), kind


def test_golden_questions_cover_every_kind_language_and_way_of_thinking() -> None:
    questions = all_golden()
    assert {question.kind for question in questions} == {*PICTURE_KINDS, *CHAT_KINDS, "greeting"}
    assert {question.language for question in questions} == set(LANGUAGES)
    assert {question.thinking for question in questions} == {True, False}


def test_golden_questions_are_what_the_code_still_asks() -> None:
    for golden in all_golden():
        asked = ask(golden.seed, golden.kind)
        assert asked is not None
        assert (golden.question, golden.expected) == (asked.question.text, asked.expected)
        assert (golden.language, golden.thinking) == (asked.question.language, asked.thinking)


def test_golden_answers_decode_from_their_ids() -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    for question in all_golden():
        assert tokenizer.decode(question.answer_ids, skip_special_tokens=False) == question.answer


def test_the_canary_image_can_be_drawn_again() -> None:
    canary = json.loads((GOLDEN / "canary.json").read_text(encoding="utf-8"))
    assert set(canary) == {"prompt", "answer"}
    assert Image.open(GOLDEN / "canary.png").convert("RGB").tobytes() == drawn_image(CANARY_SEED).tobytes()


def test_parity_cases_have_logits_and_images() -> None:
    with (GOLDEN / "logits.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        shapes = {name: tensor["shape"] for name, tensor in json.loads(file.read(length)).items() if name[0] != "_"}
    cases = parity_cases()
    image = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))["image_token_id"]
    vocabulary = tensors()["lm_head.weight"]["shape"][0]
    assert shapes == {case.name: [len(case.generated_ids), vocabulary] for case in cases}
    for case in cases:
        image_tokens = case.input_ids.count(image)
        assert image_tokens == sum(h * w // 4 for _, h, w in case.image_grid)


def test_the_golden_folder_stays_under_two_megabytes() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < MOST_GOLDEN_BYTES


@pytest.mark.parametrize(
    "name", ["README.md", "chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"]
)
def test_the_checkpoint_folder_is_complete(name: str) -> None:
    assert (CHECKPOINT / name).stat().st_size > 0
