"""The synthetic checkpoint can be exported, and never ends an answer by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open

from bench.baselines.bare_engine import bare_engine
from bench.checkpoints.synthetic import FULL, Shape, write_checkpoint
from bench.cli import main
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from export.build.pipeline import build
from glmserve.model.tokenizer import Tokenizer

TINY = Shape("tiny", layers=1, ffn=64, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(TINY, tmp_path_factory.mktemp("bench") / "tiny")


@pytest.mark.parametrize(("out", "config", "said"), [("new", "{", "not readable JSON"), (".", "{}", "File exists")])
def test_a_checkpoint_that_cannot_be_written_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, out: str, config: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(config, "utf-8")
    monkeypatch.setattr(sys, "argv", ["bench", "checkpoint", str(tmp_path / out), "--model", str(tmp_path)])
    with pytest.raises(SystemExit, match=said):
        main()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_answer_has_as_many_tokens_as_were_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    made = build(checkpoint, tmp_path, Console(quiet=True))
    preparer = Preparer(made)
    question = QuestionMaker(preparer.tokenizer, seed=0).question()
    with bare_engine(made, threads=1) as engine:
        assert len(engine.answer(preparer.request(question, max_tokens=64)).tokens) == 64


@pytest.mark.parity
def test_the_baseline_gives_the_answer_of_our_engine_and_tells_when_it_began(checkpoint: Path, tmp_path: Path) -> None:
    from bench.baselines.flask_transformers import Model, create_app  # brings torch, which takes seconds

    made = build(checkpoint, tmp_path, Console(quiet=True))
    preparer = Preparer(made)
    question = QuestionMaker(preparer.tokenizer, seed=1).question()
    client = create_app(Model(checkpoint)).test_client()
    reply = client.post("/v1/chat/vision", data=question.body(16), content_type="application/json").json
    with bare_engine(made, threads=1) as engine:
        tokens = engine.answer(preparer.request(question, 16)).tokens
    assert reply["result"] == preparer.tokenizer.decode(tokens).strip()
    assert reply["usage"]["prompt_tokens"] == len(preparer.request(question).input_ids)
    assert reply["timings"]["first_token_s"] > 0


def test_a_prompt_has_about_128_tokens_64_of_them_the_image(checkpoint: Path) -> None:
    tokenizer = Tokenizer.read(checkpoint)
    text = QuestionMaker(tokenizer, seed=0).question().prompt
    assert 50 <= len(tokenizer.encode_plain(text)) <= 58


def test_every_question_has_an_image_and_words_of_its_own(checkpoint: Path) -> None:
    asker = QuestionMaker(Tokenizer.read(checkpoint), seed=0)
    questions = [asker.question() for _ in range(20)]
    assert len({question.image for question in questions}) == len({question.prompt for question in questions}) == 20


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(checkpoint: Path, tmp_path: Path) -> None:
    same = write_checkpoint(TINY, tmp_path / "same")
    other = write_checkpoint(TINY, tmp_path / "other", seed=1)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (checkpoint, same, other)]
    assert weights[0] == weights[1] != weights[2]


def test_the_full_shape_has_about_225_million_text_parameters() -> None:
    layer = FULL.hidden * (2 * FULL.heads * FULL.head_dim + 2 * FULL.kv_heads * FULL.head_dim + 3 * FULL.ffn)
    assert 210e6 < FULL.layers * layer < 240e6


def test_control_tokens_and_parts_of_characters_are_never_the_likeliest(checkpoint: Path) -> None:
    tokenizer = Tokenizer.read(checkpoint)
    with safe_open(checkpoint / "model.safetensors", framework="np") as file:
        head = file.get_tensor("lm_head.weight").astype(np.float32)
    silent = [token for token in range(len(head)) if not head[token].any()]
    assert set(tokenizer.control_tokens.values()) <= set(silent)
    assert all("\ufffd" not in tokenizer.decode([token]) for token in set(range(len(head))) - set(silent))
