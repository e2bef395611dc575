"""A checkpoint of a given configuration is written in shards, and what exporting it costs is measured beside a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_checkpoint import REAL, needs_real

from bench.checkpoints.random_weights import weights_of
from bench.checkpoints.synthetic import Shape, write_checkpoint, write_like
from bench.measure.export_cost import measure
from export.checkpoint.weights import Weights
from export.precision import Precision
from glmserve.model.config import Checkpoint

TINY = Shape("tiny", layers=2, ffn=512, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(TINY, tmp_path_factory.mktemp("bench") / "whole")


def test_shards_hold_the_weights_of_the_single_file(whole: Path, tmp_path: Path) -> None:
    sharded = write_like(whole, tmp_path / "sharded", shards=3)
    names = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert [path.name for path in Weights.open(sharded).files] == names
    sizes = [path.stat().st_size for path in Weights.open(sharded).files]
    assert sum(sizes) == pytest.approx((whole / "model.safetensors").stat().st_size, rel=0.01)
    for weight in weights_of(Checkpoint.read(whole)):
        arrays = [Weights.open(folder).read(weight.name, weight.shape) for folder in (whole, sharded)]
        np.testing.assert_array_equal(*(array.astype(np.float32) for array in arrays))


def test_the_cost_of_an_export_is_measured_and_nothing_left(whole: Path, tmp_path: Path) -> None:
    (row,) = measure(whole, tmp_path / "scratch", [Precision.BF16], lambda _: None)
    assert row["peak_gib"] > 0.01 and row["build_s"] > 0 and row["copy_s"] > 0
    assert 0 < row["written_gib"] < row["checkpoint_gib"]  # the decoder's weights are linked, but q, k and v
    assert not list((tmp_path / "scratch").iterdir())


@needs_real
def test_the_real_configuration_has_the_published_number_of_weights() -> None:
    weights = list(weights_of(Checkpoint.read(REAL)))
    assert len(weights) == 704
    assert sum(weight.size_bytes for weight in weights) == 2 * 10_292_777_472
