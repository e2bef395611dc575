"""An export holds a few tensors at a time, whatever it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from large_checkpoint import make_large
from peak_memory import growth_bytes

MIB = 1024**2
IMPORTS = """
import sys
from pathlib import Path
from rich.console import Console
from export.build import build
from export.precision import Precision
"""
CODE = "build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True), Precision(sys.argv[3]))"


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_memory_stays_far_below_the_size_of_the_checkpoint(tmp_path: Path, precision: str) -> None:
    checkpoint = make_large(tmp_path / "large", layers=12)
    size = (checkpoint / "model.safetensors").stat().st_size
    grown = growth_bytes(IMPORTS, CODE, str(checkpoint), str(tmp_path / "builds"), precision)
    assert size > 250 * MIB and grown < 0.6 * size, f"{grown} over a checkpoint of {size}"
