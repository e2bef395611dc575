"""GLM-4.1V-9B-Thinking: the same architecture, other ids, rope and template, and answers that begin with thoughts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from glm41v import CONTROLS, ENDS, make_glm41v
from random_checkpoints import needs_torch
from rich.console import Console

from export.build.pipeline import build
from export.verify.candidate import Candidate
from export.verify.cases import standard_cases
from export.verify.parity import compare
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder, VideoPart
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.output_parser import AnswerReader
from glmserve.model.tokenizer import Tokenizer

pytestmark = [pytest.mark.parity, needs_torch]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_glm41v(tmp_path_factory.mktemp("glm41v") / "checkpoint")


def _prompts(folder: Path) -> tuple[Checkpoint, Tokenizer, PromptBuilder]:
    facts, tokenizer = Checkpoint.read(folder), Tokenizer.read(folder)
    return facts, tokenizer, PromptBuilder.read(folder, tokenizer, facts.image_token_id, facts.vision.merge_size)


def test_ids_and_rope_are_the_checkpoints_own(checkpoint: Path) -> None:
    facts, tokenizer, _ = _prompts(checkpoint)
    ids = [tokenizer.control_tokens[text] for text in CONTROLS]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "one after the other, as from 151329 on in the real one"
    assert facts.image_token_id == ids[0] + 14
    assert facts.eos_token_ids == tuple(tokenizer.control_tokens[text] for text in ENDS)
    assert (facts.text.rope_theta, facts.text.mrope_section) == (10_000.0, (8, 12, 12))
    assert (facts.text.head_dim, facts.text.rotary_dim) == (128, 64)


def test_a_config_with_the_text_models_values_beside_everything_else_says_the_same(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    flat = config.pop("text_config") | config
    flat["rope_scaling"]["type"] = flat["rope_scaling"].pop("rope_type")
    (tmp_path / "config.json").write_text(json.dumps(flat), "utf-8")
    (tmp_path / "preprocessor_config.json").write_bytes((checkpoint / "preprocessor_config.json").read_bytes())
    (tmp_path / "generation_config.json").write_bytes((checkpoint / "generation_config.json").read_bytes())
    assert Checkpoint.read(tmp_path) == Checkpoint.read(checkpoint)


@pytest.mark.parametrize("thinking", [None, True, False])
def test_a_prompt_begins_with_the_ids_that_transformers_expects(thinking: bool | None, checkpoint: Path) -> None:
    facts, tokenizer, prompts = _prompts(checkpoint)
    question = Message("user", (ImagePart(), "What kind of dog is this?"))
    ids = prompts.build([question], [Grid(4, 6)], thinking).tolist()
    named = tokenizer.control_tokens
    newline = tokenizer.encode("\n")
    begin = [named["[gMASK]"], named["<sop>"], named["<|user|>"], *newline, named["<|begin_of_image|>"]]
    image = [facts.image_token_id] * 6
    asked = tokenizer.encode("What kind of dog is this?")
    assert ids == [*begin, *image, named["<|end_of_image|>"], *asked, named["<|assistant|>"], *newline]


def test_the_times_of_a_videos_frames_are_whole_seconds_without_a_word(checkpoint: Path) -> None:
    """As the text that transformers expects of the model begins with "012345", six moments of a video."""
    _, tokenizer, prompts = _prompts(checkpoint)
    asked = Message("user", (VideoPart((0.0, 1.9, 12.5)), "Describe this video."))
    ids = prompts.build([asked], [Grid(2, 2)] * 3, None).tolist()
    said = tokenizer.decode(ids).split("<|user|>")[1]
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    shown = f"<|begin_of_video|>{image}0{image}1{image}12<|end_of_video|>"
    assert said == f"\n{shown}Describe this video.<|assistant|>\n"


def test_thoughts_and_answer_marks_are_kept_apart_from_the_answer(checkpoint: Path) -> None:
    _, tokenizer, prompts = _prompts(checkpoint)
    assert prompts.thinks and not prompts.takes_tools
    reader = AnswerReader(tokenizer)
    said = "<think>Got it.</think><answer>It is at <|begin_of_box|>[[1,2,30,40]]<|end_of_box|>.</answer>"
    for token in tokenizer.encode(said):
        reader.push([token])
    reader.finish()
    assert reader.thinking == "Got it." and reader.content == "It is at [[1,2,30,40]]."
    assert [box.corners for box in reader.boxes] == [(1, 2, 30, 40)]


def test_an_earlier_answer_that_is_sent_back_whole_brings_no_control_tokens_along(checkpoint: Path) -> None:
    _, tokenizer, prompts = _prompts(checkpoint)
    earlier = "<think>Got it.</think><answer>A cat</answer>"
    turns = [Message("user", ("Hello",)), Message("assistant", (earlier,)), Message("user", ("And?",))]
    ids = prompts.build(turns, [], None).tolist()
    marks = {tokenizer.control_tokens[text] for text in ("<think>", "</think>", "<answer>", "</answer>")}
    assert not marks & set(ids)
    assert "Got it" not in tokenizer.decode(ids), "a template gets the answer only, as it does from transformers' users"


def test_it_computes_what_transformers_computes(checkpoint: Path, tmp_path: Path) -> None:
    from export.verify.reference import Reference

    folder = build(checkpoint, tmp_path / "builds", Console(quiet=True))
    stages = list(compare(Reference(checkpoint), Candidate(folder, 8, 1024), standard_cases()))
    assert stages and not [f"{stage.name}: {stage.worst}" for stage in stages if not stage.passed]
