"""A build of fewer bits says what the golden answers say, but for a share that is small and known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console
from shared_builds import build_of_demo

from demo.golden_set import MOST_TOKENS, drawn_image, golden_questions
from export.build.pipeline import build
from export.precision import Precision, Target
from export.quantize.blockwise import find_scales, round_to_codes
from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids, synthetic_image
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, decoder_in
from glmserve.contract import DecoderGraph
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
SEEN = [question for question in golden_questions() if question.has_image]
MOST_CHANGED = {Precision.FP16: 0.01, Precision.INT8: 0.02, Precision.INT4: 0.06}


@pytest.mark.parametrize("precision", list(MOST_CHANGED))
def test_few_golden_answers_change(precision: Precision) -> None:
    folder = build_of_demo(precision)
    assert Manifest.read(folder).precision == precision
    candidate = Candidate(folder, 1, 1024)
    tokenizer = Tokenizer.read(folder / CHECKPOINT_FOLDER)
    changed = 0
    for question in SEEN:
        words = Message("user", (ImagePart(), question.question))
        case = Case("", (words,), (drawn_image(question.seed),), question.thinking)
        answer = candidate.answer(candidate.prompt(input_ids(candidate, case), list(case.images)), MOST_TOKENS)
        ids = [token for token in answer if token not in candidate.checkpoint.eos_token_ids]
        changed += not question.is_said_by(ids, tokenizer.decode(ids))
    assert len(SEEN) >= 200 and changed <= MOST_CHANGED[precision] * len(SEEN), f"{changed} of {len(SEEN)}"


@pytest.mark.parametrize("precision", list(MOST_CHANGED))
def test_image_features_point_the_same_way(precision: Precision) -> None:
    exact = Candidate(build_of_demo(), 1, 64)
    rounded = Candidate(build_of_demo(precision), 1, 64)
    for size in ((112, 112), (200, 90)):
        wanted, found = (candidate.features(synthetic_image(*size, seed=1))[0] for candidate in (exact, rounded))
        cosine = (wanted * found).sum(-1) / np.linalg.norm(wanted, axis=-1) / np.linalg.norm(found, axis=-1)
        assert cosine.min() >= 0.999


def test_fewer_bits_take_less_room() -> None:
    sizes = {}
    for precision in (Precision.FP32, *MOST_CHANGED):
        folder = build_of_demo(precision)
        sizes[precision] = sum(path.stat().st_size for path in folder.rglob("decoder.data"))
    full = sizes[Precision.FP32]
    assert sizes[Precision.FP16] < 0.51 * full
    assert sizes[Precision.INT8] < 0.35 * full and sizes[Precision.INT4] < 0.25 * full


def test_bf16_is_for_cuda_and_keeps_kv_in_it(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="bf16 runs on CUDA only"):
        build(DEMO, tmp_path, QUIET, Precision.BF16)
    folder = build_of_demo(Precision.BF16, Target.CUDA)
    model = ir.load(decoder_in(folder))
    types = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    for name in (*DecoderGraph.CHUNK.past(0), *DecoderGraph.DECODED.present(0)):
        assert types[name] == ir.DataType.BFLOAT16
    assert types[DecoderGraph.IMAGE_FEATURES] == ir.DataType.FLOAT
    assert Manifest.read(folder).target == Target.CUDA


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [64, 200])
def test_rounding_loses_no_more_than_half_a_step(bits: int, inputs: int) -> None:
    weight = np.random.default_rng(inputs).normal(size=(33, inputs)).astype(np.float32)
    weight[3] = 0
    scales = find_scales(weight, bits)
    packed = round_to_codes(weight, scales, bits)
    codes = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    restored = ((codes.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]).reshape(len(weight), -1)
    error = restored[:, :inputs] - weight
    assert not error[3].any() and not restored[:, inputs:].any()
    most = {8: 0.01, 4: 0.12}[bits]
    assert np.sqrt((error**2).mean() / (weight**2).mean()) < most
