"""A checkpoint of any size is verified layer by layer, and an error shows in the layer it is made in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from large_checkpoint import make_large
from peak_memory import growth_bytes
from random_checkpoints import DEMO, SHAPES, Shape, make, needs_torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner

from export.build.pipeline import build
from export.checkpoint import weights
from export.cli import app
from export.precision import Precision, Target
from export.quantize.per_channel_int8 import byte_codes
from export.verify.comparison import Stage
from glmserve.engine.runtime.device import Host

pytestmark = [pytest.mark.parity, needs_torch]
QUIET = Console(quiet=True)
SHARD = "model.safetensors"
IMPORTS = """
import sys
from pathlib import Path
from export.verify.layerwise import layerwise_stages
"""
CODE = """
stages = list(layerwise_stages(Path(sys.argv[1]), Path(sys.argv[2])))
assert all(stage.passed for stage in stages), [stage for stage in stages if not stage.passed]
"""


def layerwise_stages(made: Path, checkpoint: Path) -> list[Stage]:
    from export.verify import layerwise

    return list(layerwise.layerwise_stages(made, checkpoint))


@pytest.mark.parametrize("number", [0, 2, 5], ids=lambda number: SHAPES[number].name)
def test_every_layer_of_a_right_build_passes(number: int, tmp_path: Path) -> None:
    shape = SHAPES[number]
    checkpoint = make(shape, tmp_path / "checkpoint")
    stages = layerwise_stages(build(checkpoint, tmp_path / "builds", QUIET), checkpoint)
    assert not [stage for stage in stages if not stage.passed]
    names = [stage.name for stage in stages]
    for part in ("tokens", "positions", "embeddings", "patches and positions", "features", "logits"):
        assert any(part in name for name in names)
    assert sum(": layer " in name for name in names) == 2 * shape.layers
    assert sum(": block " in name for name in names) == 2 * shape.vision_depth


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_of_the_demo_passes(precision: Precision) -> None:
    target = Target.CUDA if precision is Precision.BF16 else Target.CPU
    made = build_of_demo(precision, target)
    assert not [stage for stage in layerwise_stages(made, DEMO) if not stage.passed]


def heads_that_pass(made: Path, checkpoint: Path) -> list[bool]:
    return [stage.passed for stage in layerwise_stages(made, checkpoint) if "logits" in stage.name]


def test_a_tied_heads_own_rounding_is_compared_and_not_the_table_that_it_is_tied_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make(Shape("tied", tied=True), tmp_path / "checkpoint")
    made = build(checkpoint, tmp_path / "builds", QUIET, Precision.INT8)
    assert heads_that_pass(made, checkpoint) == [True, True]
    monkeypatch.setattr(weights, "byte_codes", lambda weight, scales: byte_codes(weight, scales)[:, ::-1])
    wrong = build(checkpoint, tmp_path / "wrong", QUIET, Precision.INT8)
    assert heads_that_pass(wrong, checkpoint) == [False, False]


def test_a_head_so_wide_that_it_is_rounded_in_groups_is_compared(tmp_path: Path) -> None:
    checkpoint = make_large(tmp_path / "large", layers=1, hidden=2048, ffn=256)
    shutil.copyfile(DEMO / "tokenizer_config.json", checkpoint / "tokenizer_config.json")
    made = build(checkpoint, tmp_path / "builds", QUIET, Precision.INT8)
    assert heads_that_pass(made, checkpoint) == [True, True]


def test_an_error_shows_in_the_layer_it_is_made_in_and_in_no_other(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(DEMO, other)
    tensors = load_file(other / SHARD)
    tensors["model.language_model.layers.1.mlp.down_proj.weight"][0] += 1
    save_file(tensors, other / SHARD)
    made = build(other, tmp_path / "builds", QUIET)
    wrong = [stage.name for stage in layerwise_stages(made, DEMO) if not stage.passed]
    in_a_layer = [name for name in wrong if "encoder and decoder" not in name]  # where it shows too
    assert in_a_layer == ["two images: layer 1, relative", "system: layer 1, relative"] != wrong


def test_memory_holds_a_layer_and_not_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = make_large(tmp_path / "large", layers=12)
    shutil.copyfile(DEMO / "tokenizer_config.json", checkpoint / "tokenizer_config.json")
    made = build(checkpoint, tmp_path / "builds", QUIET, Precision.FP16)
    whole = 2 * (checkpoint / SHARD).stat().st_size  # in fp32
    grown = growth_bytes(IMPORTS, CODE, str(made), str(checkpoint))
    assert whole > 600e6 and grown < 0.5 * whole, f"{grown} over a checkpoint of {whole}"


def test_a_first_tensor_of_integers_does_not_say_what_the_others_are(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    save_file(load_file(checkpoint / SHARD) | {"a.first": np.array([1], np.int64)}, checkpoint / SHARD)
    from export.verify.layerwise import must_stream

    assert not must_stream(checkpoint)


def test_verify_goes_layer_by_layer_where_the_checkpoint_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copied(build_of_demo(), tmp_path / "builds")
    monkeypatch.setattr(Host, "total_memory_bytes", lambda _: 1 << 20)
    result = CliRunner().invoke(app, ["verify", str(made), "--checkpoint", str(DEMO)])
    assert result.exit_code == 0 and "each layer is loaded and compared alone" in result.output
    certificate = json.loads((made / "certificate.json").read_text("utf-8"))
    assert certificate["mode"] == "layer by layer" and 0 < certificate["margin"]["left"] < 1
    assert certificate["passed"] and any(": layer 3" in stage["name"] for stage in certificate["stages"])
