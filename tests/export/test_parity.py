"""A build computes what transformers computes, stage by stage, whatever the checkpoint's shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from random_checkpoints import DEMO, SHAPES, Shape, make, needs_torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner

from export.build.pipeline import build
from export.cli import app
from export.errors import Exit
from export.precision import Precision
from export.verify.candidate import Candidate
from export.verify.cases import standard_cases, video_cases
from export.verify.comparison import Stage
from export.verify.parity import compare

pytestmark = [pytest.mark.parity, needs_torch]


def _stages(checkpoint: Path, out: Path, precision: Precision = Precision.FP32) -> list[Stage]:
    from export.verify.reference import Reference

    folder = build(checkpoint, out, Console(quiet=True), precision)
    candidate = Candidate(folder, 8, 1024)
    videos = video_cases(candidate.prompts)
    assert videos, "the demo's template takes videos"
    return list(compare(Reference(checkpoint), candidate, [*standard_cases(), *videos]))


def _assert_all_pass(stages: list[Stage]) -> None:
    failed = [f"{stage.name}: {stage.worst:.2e} > {stage.tolerance:.0e}" for stage in stages if not stage.passed]
    assert not failed, failed
    for part in ("patches", "vision", "tokens", "positions", "prefill in chunks of 16", "decode among 8 rows"):
        assert any(part in stage.name for stage in stages)


def test_verify_certifies_the_demo(tmp_path: Path) -> None:
    folder = copied(build_of_demo(), tmp_path / "builds")
    result = CliRunner().invoke(app, ["verify", str(folder), "--checkpoint", str(DEMO), "--samples", "4"])
    assert result.exit_code == 0, result.output
    certificate = json.loads((folder / "certificate.json").read_text("utf-8"))
    assert certificate["passed"] and certificate["digest"] == folder.name
    assert {"torch", "transformers", "onnxruntime"} <= certificate["versions"].keys()
    known = ("name", "worst", "typical", "tolerance")
    _assert_all_pass([Stage(*(stage[key] for key in known)) for stage in certificate["stages"]])


def test_verify_fails_a_build_that_computes_something_else(tmp_path: Path) -> None:
    """A build with one other weight; its certificate says so, and the exit code too."""
    checkpoint = make(SHAPES[2], tmp_path / "checkpoint")
    folder = build(checkpoint, tmp_path / "builds", Console(quiet=True))
    _alter(checkpoint, "model.language_model.layers.0.mlp.down_proj.weight")
    result = CliRunner().invoke(app, ["verify", str(folder), "--checkpoint", str(checkpoint), "--samples", "1"])
    assert result.exit_code == Exit.PARITY_FAILED
    assert not json.loads((folder / "certificate.json").read_text("utf-8"))["passed"]


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "embeddings"])
def test_verify_with_another_checkpoint_compares_nothing_and_leaves_the_certificate(name: str, tmp_path: Path) -> None:
    folder = copied(build_of_demo(), tmp_path / "builds")
    before = (folder / "certificate.json").read_bytes()
    other = Path(shutil.copytree(DEMO, tmp_path / "other"))
    if name == "embeddings":
        _alter(other, "model.language_model.embed_tokens.weight")
    else:
        (other / name).write_bytes((other / name).read_bytes() + b"\n")
    result = CliRunner().invoke(app, ["verify", str(folder), "--checkpoint", str(other), "--samples", "1"])
    assert result.exit_code == Exit.BAD_ARTIFACT
    assert f"not made of the checkpoint {other}" in result.stderr and name in result.stderr
    assert (folder / "certificate.json").read_bytes() == before


def _alter(checkpoint: Path, name: str) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    weights[name] = weights[name] + 1
    save_file(weights, file)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_checkpoint_of_another_shape_computes_what_transformers_computes(shape, tmp_path: Path) -> None:
    _assert_all_pass(_stages(make(shape, tmp_path / shape.name), tmp_path / "builds"))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_a_tied_head_is_rounded_beside_the_table_that_it_is_tied_to(precision: Precision, tmp_path: Path) -> None:
    checkpoint = make(Shape("tied", tied=True), tmp_path / "checkpoint")
    stages = _stages(checkpoint, tmp_path / "builds", precision)
    _assert_all_pass([stage for stage in stages if "divergence" not in stage.name])  # a random head's logits are steep


def test_a_comparison_notices_what_it_should() -> None:
    import numpy as np

    right = np.zeros((2, 3), np.float32)
    assert Stage.of("same", right, right, 1e-4).passed
    assert not Stage.of("off", right + 2e-4, right, 1e-4).passed
    assert not Stage.of("not a number", right * np.nan, right, 1e-4).passed
    assert not Stage.of("other shape", right[:1], right, 1e-4).passed
