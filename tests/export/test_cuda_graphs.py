"""The decoder's graph for ONNX Runtime on a GPU computes what transformers computes, here in fp32 on a processor."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from random_checkpoints import DEMO, SHAPES, make, needs_torch
from rich.console import Console

from export.build.pipeline import build
from export.checkpoint.weights import Weights
from export.graph.builder import declare, graph_input
from export.graph.cuda_layers import Gating
from export.graph.decoder import decoder_graph
from export.graph.layers import GraphWriter
from export.precision import Numbers
from export.verify.candidate import Candidate
from export.verify.cases import standard_cases
from export.verify.parity import compare
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.model.config import Checkpoint

QUIET = Console(quiet=True)


def _with_fused_decoder(checkpoint: Path, tmp_path: Path, numbers: Numbers) -> Path:
    """A copy of a build in fp32 with the decoder as a build for CUDA has it."""
    made = build(checkpoint, tmp_path / "builds", QUIET)
    copy = tmp_path / "fused"
    shutil.copytree(made, copy, copy_function=shutil.copyfile)
    graph = decoder_in(copy)
    for old in graph.parent.glob("decoder.*"):
        old.unlink()
    model = decoder_graph(Checkpoint.read(copy / CHECKPOINT_FOLDER), Weights.open(checkpoint), numbers)
    ir.save(model, graph, external_data="decoder.data")
    return copy


@pytest.mark.parity
@needs_torch
@pytest.mark.parametrize("number", [0, 4], ids=lambda number: SHAPES[number].name)
def test_the_graph_computes_what_transformers_computes(number: int, tmp_path: Path) -> None:
    checkpoint = make(SHAPES[number], tmp_path / "checkpoint")
    from export.verify.reference import Reference

    candidate = Candidate(_with_fused_decoder(checkpoint, tmp_path, Numbers(fuses=True)), 3, 1024)
    stages = list(compare(Reference(checkpoint), candidate, standard_cases()[:3]))
    failed = [f"{stage.name}: {stage.worst:.2e} > {stage.tolerance:.0e}" for stage in stages if not stage.passed]
    assert not failed, failed
    assert any("decode among 3 rows" in stage.name for stage in stages)


@needs_torch
def test_prompts_read_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    """Where attention does not turn queries and keys: a processor's, other than a GPU's, takes all prompts for the
    first, by the positions that it is given."""
    checkpoint = make(SHAPES[0], tmp_path / "checkpoint")
    candidate = Candidate(_with_fused_decoder(checkpoint, tmp_path, Numbers(fuses=True)), 2, 64)
    prompts = [np.arange(10, 15), np.arange(20, 29)]  # a token's last digit is its position
    alone = [candidate.prefill(candidate.prompt(ids, []), 0, 64)[-1] for ids in prompts]
    candidate.poison()
    tokens, new = np.concatenate(prompts), np.array([5, 9])
    step = candidate._step(tokens, np.broadcast_to(tokens % 10, (3, 14)), np.cumsum(new) - 1)
    candidate.decoder.run(replace(step, chunk_lengths=np.zeros(2, np.int32), chunk_new=new))
    assert np.abs(candidate._logits() - np.stack(alone)).max() < 1e-4


@pytest.mark.parametrize(
    ("fused", "other", "tolerance"),
    [(4, Numbers(bits=4), 0.3), (8, Numbers(), 0.5), (None, Numbers(), 1e-3)],
    ids=["int4 as before", "int8 as fp32", "fp32 as before"],
)
def test_joined_layers_give_the_same_answers(
    fused: int | None, other: Numbers, tolerance: float, tmp_path: Path
) -> None:
    made = (_with_fused_decoder(DEMO, tmp_path / str(n), n) for n in (Numbers(bits=fused, fuses=True), other))
    ours, others = (Candidate(build, 1, 64) for build in made)
    prompt = np.arange(300, 330)
    off = ours.prefill(ours.prompt(prompt, []), 0, 64)[-1] - others.prefill(others.prompt(prompt, []), 0, 64)[-1]
    assert np.abs(off).max() < tolerance


@pytest.mark.parametrize("real", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
@pytest.mark.parametrize("size", [96, 1408])
def test_gating_is_silu_of_the_gate_times_the_other(real: ir.DataType, size: int) -> None:
    g = GraphWriter(Weights.open(DEMO), Numbers(real, fuses=True))
    gate, up = (graph_input(name, real, [1, "T", size]) for name in ("gate", "up"))
    gated = Gating(g, size).write(gate, up, "gated")
    model = g.model("gating", [gate, up], [declare(gated, "gated", real, [1, "T", size])])
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    gates, ups = (random.normal(0, spread, (1, 5, size)).astype(real.numpy()) for spread in (3, 100))
    (found,) = session.run(None, {"gate": gates, "up": ups})
    exact = ups.astype(np.float64) * gates / (1 + np.exp(-gates.astype(np.float64)))
    assert np.abs(found - exact).max() <= np.abs(exact).max() * (1e-6 if real == ir.DataType.FLOAT else 1e-3)
