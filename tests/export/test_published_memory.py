"""A build of published codes holds a tensor at a time, however many there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from large_checkpoint import make_large
from peak_memory import growth_bytes
from published import SHARD, Tensors, publish

IMPORTS = """
import sys
from pathlib import Path
from rich.console import Console
from export.build.pipeline import build
"""
CODE = "build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True), None)"


def random_layer(name: str, weight: np.ndarray) -> Tensors:
    """Codes of 8 bits with nothing behind them."""
    random = np.random.default_rng(len(name))
    out, inputs = weight.shape
    words = random.integers(-(1 << 31), 1 << 31, (inputs // 4, out), dtype=np.int64).astype(np.int32)
    groups = inputs // 32
    return {
        f"{name}.qweight": words,
        f"{name}.qzeros": random.integers(0, 1 << 30, (groups, out // 4), dtype=np.int32),
        f"{name}.scales": np.full((groups, out), 0.001, np.float16),
        f"{name}.g_idx": (np.arange(inputs) // 32).astype(np.int32),
    }


@pytest.mark.build
def test_peak_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    grown, sizes = [], []
    for layers in (4, 16):
        numbers = make_large(tmp_path / f"numbers-{layers}", layers=layers)
        checkpoint = publish(numbers, tmp_path / f"codes-{layers}", {"quant_method": "gptq", "bits": 8}, random_layer)
        sizes.append((checkpoint / SHARD).stat().st_size)
        grown.append(growth_bytes(IMPORTS, CODE, str(checkpoint), str(tmp_path / f"builds-{layers}")))
    assert sizes[1] - sizes[0] > 100e6 and grown[1] < grown[0] + 40e6, f"{grown} over checkpoints of {sizes}"
