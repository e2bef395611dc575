"""KV in 8 bits: its scales reach what keys and values are, answers stay, and it takes a quarter of the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console
from shared_builds import build_of_demo

from demo.golden_set import MOST_TOKENS, GoldenQuestion, drawn_image, golden_questions
from export.build.pipeline import build
from export.build.vision_backend import VisionBackend
from export.checkpoint.weights import Weights
from export.graph.kv_scales import kv_scales
from export.precision import KvPrecision, Precision
from export.verify.candidate import Candidate
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in
from glmserve.contract import DecoderGraph
from glmserve.engine.memory_plan import element_bytes
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
ASKED = [question for question in golden_questions() if question.has_image][::4]


@pytest.fixture(scope="module")
def rounded() -> Path:
    return build_of_demo(kv=KvPrecision.INT8)


def _answer(candidate: Candidate, question: GoldenQuestion) -> list[int]:
    shown = drawn_image(question.seed)
    messages = [Message("user", (ImagePart(), question.question))]
    ids = candidate.prompts.build(messages, [candidate.normalised(shown)[1]], question.thinking)
    answer = candidate.answer(candidate.prompt(ids, [shown]), max_tokens=MOST_TOKENS)
    return [token for token in answer if token not in candidate.checkpoint.eos_token_ids]


def test_at_most_two_percent_of_answers_change(rounded: Path) -> None:
    candidate, tokenizer = Candidate(rounded, 2, 1024), Tokenizer.read(rounded / CHECKPOINT_FOLDER)
    answers = [(question, _answer(candidate, question)) for question in ASKED]
    changed = sum(not question.is_said_by(ids, tokenizer.decode(ids)) for question, ids in answers)
    assert changed <= 0.02 * len(ASKED), f"{changed} of {len(ASKED)}"


def test_the_build_says_so_and_keeps_bytes(rounded: Path) -> None:
    manifest = Manifest.read(rounded)
    assert manifest.kv == "int8" and element_bytes(manifest.precision, manifest.target, manifest.kv) == 1
    model = ir.load(decoder_in(rounded))
    types = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    for group in (DecoderGraph.DECODED, DecoderGraph.CHUNK):
        assert {types[name] for name in (*group.past(0), *group.present(0))} == {ir.DataType.INT8}


def test_the_range_of_every_channel_reaches_what_is_in_it_and_is_not_wasted() -> None:
    """Against random directions, which is what the scales suppose."""
    text, weights = Checkpoint.read(DEMO).text, Weights.open(DEMO)
    layer, size = "model.language_model.layers.1", text.kv_heads * text.head_dim
    random = np.random.default_rng(0).normal(size=(4000, text.hidden)).astype(np.float32)
    normed = random / np.sqrt(np.square(random).mean(axis=1, keepdims=True))
    normed *= weights.read(f"{layer}.input_layernorm.weight", (text.hidden,)).astype(np.float32)
    _, scale = kv_scales(weights, text, layer, "layers.1.attn")
    values = normed @ weights.read(f"{layer}.self_attn.v_proj.weight", (size, text.hidden)).astype(np.float32).T
    values += weights.read(f"{layer}.self_attn.v_proj.bias", (size,)).astype(np.float32)
    filled = np.abs(values).max(axis=0) / (127 * scale.numpy().ravel())
    assert (filled < 1).all() and np.median(filled) > 0.3


def test_rows_move_with_their_bytes(rounded: Path) -> None:
    candidate = Candidate(rounded, 3, 512)
    prompt = candidate.prompt(candidate.prompts.build([Message("user", ("Hello there, who are you?",))], [], False), [])
    token = int(candidate.prefill(prompt, 2, 512)[-1].argmax())
    candidate.decoder.move(2, 0, prompt.length)
    moved = candidate.decode([token], [prompt.length], [prompt.delta])[0]
    candidate.prefill(prompt, 0, 512)
    assert np.array_equal(moved, candidate.decode([token], [prompt.length], [prompt.delta])[0])


def test_tensorrt_gets_no_rounded_kv(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"int8.*TensorRT"):
        build(DEMO, tmp_path, QUIET, Precision.FP32, vision_backend=VisionBackend.TENSORRT, kv=KvPrecision.INT8)
