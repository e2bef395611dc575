"""An export holds a few tensors at a time, whatever it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from large_checkpoint import make_large

MIB = 1024**2
CODE = """
import resource, sys
from pathlib import Path
from rich.console import Console
from export.build import build
from export.precision import Precision
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True), Precision(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_memory_stays_far_below_the_size_of_the_checkpoint(tmp_path: Path, precision: str) -> None:
    checkpoint = make_large(tmp_path / "large", layers=12)
    size = (checkpoint / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", CODE, str(checkpoint), str(tmp_path / "builds"), precision]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert size > 250 * MIB and int(done.stdout) * 1024 < 0.6 * size, f"{done.stdout} kB over a checkpoint of {size}"
