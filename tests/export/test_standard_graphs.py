"""Graphs of ONNX's own operators only compute what transformers computes, on the same weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from random_checkpoints import DEMO, SHAPES, make, needs_torch
from rich.console import Console
from shared_builds import build_of_demo

from export.build.pipeline import build
from export.build.vision_backend import VisionBackend
from export.graph.standard_ops import standard_of
from export.precision import Precision, Target
from export.verify.candidate import Candidate
from export.verify.cases import standard_cases
from export.verify.parity import compare
from glmserve.build.manifest import decoder_in, vision_in
from glmserve.errors import BadArtifact

pytestmark = [pytest.mark.parity, needs_torch]
QUIET = Console(quiet=True)


class FilledCandidate(Candidate):
    """Attention multiplies what it leaves out by zero, so its buffers must hold numbers."""

    def poison(self) -> None:
        """Leaves what earlier rows wrote, which must not show either."""


def _on_standard_graphs(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a build that runs its standard graphs."""
    made = build(checkpoint, tmp_path / "builds", QUIET, vision_backend=VisionBackend.TENSORRT)
    copy = tmp_path / "standard"
    shutil.copytree(made, copy, copy_function=shutil.copyfile)
    for graph in (decoder_in(copy), vision_in(copy)):
        standard_of(graph).replace(graph)
    return copy


@pytest.mark.parametrize("number", [0, 2], ids=lambda number: SHAPES[number].name)
def test_standard_graphs_compute_what_transformers_computes(number: int, tmp_path: Path) -> None:
    checkpoint = make(SHAPES[number], tmp_path / "checkpoint")
    from export.verify.reference import Reference

    candidate = FilledCandidate(_on_standard_graphs(checkpoint, tmp_path), 3, 1024)
    cases = standard_cases()[number : number + 3]
    stages = list(compare(Reference(checkpoint), candidate, cases))
    failed = [f"{stage.name}: {stage.worst:.2e} > {stage.tolerance:.0e}" for stage in stages if not stage.passed]
    assert not failed, failed
    assert any("decode among 3 rows" in stage.name for stage in stages)


def test_standard_graphs_have_standard_operators_only_and_no_weights_of_their_own() -> None:
    made = build_of_demo(Precision.BF16, Target.CUDA, VisionBackend.TENSORRT)
    kinds = set()
    for path in (standard_of(decoder_in(made)), standard_of(vision_in(made))):
        assert path.stat().st_size < 300_000
        model = ir.load(path)
        assert {node.domain for node in model.graph} == {""}
        assert model.graph.opset_imports == {"": 24}
        kinds |= {node.op_type for node in model.graph}
    assert {"Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter"} <= kinds


def test_rows_of_different_lengths_read_together_give_what_each_gives_alone(tmp_path: Path) -> None:

    candidate = FilledCandidate(_on_standard_graphs(DEMO, tmp_path), 2, 64)
    prompts = [np.arange(10, 15), np.arange(20, 29)]  # a token's last digit is its position
    alone = [candidate.prefill(candidate.prompt(ids, []), 0, 64)[-1] for ids in prompts]
    tokens, new = np.concatenate(prompts), np.array([5, 9])
    step = candidate._step(tokens, np.broadcast_to(tokens % 10, (3, 14)), np.cumsum(new) - 1)
    candidate.decoder.run(replace(step, chunk_lengths=np.zeros(2, np.int32), chunk_new=new))
    assert np.abs(candidate._logits() - np.stack(alone)).max() < 1e-4


def test_rounded_weights_have_no_standard_form(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"int8.*TensorRT"):
        build(DEMO, tmp_path, QUIET, Precision.INT8, Target.CUDA, VisionBackend.TENSORRT)
