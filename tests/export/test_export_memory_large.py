"""An export of more than a gigabyte in 16 bits holds a few of its tensors, whether it links or converts."""

from __future__ import annotations

from pathlib import Path

import pytest
from peak_memory import growth_bytes

from bench.checkpoints.random_weights import header_of, weights_of
from bench.checkpoints.synthetic import Shape, write_configuration
from glmserve.model.config import Checkpoint

DEEP = Shape("deep", layers=44, ffn=3424, vision_depth=4)
IMPORTS = """
import sys
from pathlib import Path
from rich.console import Console
from export.build.pipeline import build
from export.precision import Precision, Target
"""
CODE = """
build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True), Precision(sys.argv[3]), Target.CUDA)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are all zero, and take no room on the disk: memory does not ask what they are."""
    folder = write_configuration(DEEP, tmp_path_factory.mktemp("large") / "checkpoint")
    weights = list(weights_of(Checkpoint.read(folder)))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_of(weights))
        file.truncate(file.tell() + sum(weight.size_bytes for weight in weights))
    return folder


@pytest.mark.parametrize("precision", ["bf16", "fp16"], ids=["linked", "converted"])
def test_memory_stays_far_below_the_size_of_the_checkpoint(checkpoint: Path, tmp_path: Path, precision: str) -> None:
    size = (checkpoint / "model.safetensors").stat().st_size
    grown = growth_bytes(IMPORTS, CODE, str(checkpoint), str(tmp_path / "builds"), precision)
    assert size > 1.1e9 and grown < 0.15 * size, f"{grown} over a checkpoint of {size}"
