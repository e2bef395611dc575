"""An export holds a few tensors at a time, whatever it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from large_checkpoint import DEMO, make_large
from peak_memory import growth_bytes

MIB = 1024**2
IMPORTS = """
import sys
from pathlib import Path
from rich.console import Console
from export.build.pipeline import build
from export.precision import Precision
"""
CODE = "build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True), Precision(sys.argv[3]))"

ORDERED = """
import sys
from pathlib import Path
from export.build.spec import BuildSpec
from export.precision import Precision, Target
from export.plan.build_memory import resident_bytes
before = resident_bytes()
spec = BuildSpec.of(Path(sys.argv[1]), Precision.FP32, Target.CPU)
print(resident_bytes() - before)
"""
WORDS = 300_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large(tmp_path_factory.mktemp("large") / "checkpoint", layers=12)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_memory_stays_far_below_the_size_of_the_checkpoint(large: Path, tmp_path: Path, precision: str) -> None:
    size = (large / "model.safetensors").stat().st_size
    grown = growth_bytes(IMPORTS, CODE, str(large), str(tmp_path / "builds"), precision)
    assert size > 250 * MIB and grown < 0.6 * size, f"{grown} over a checkpoint of {size}"


def test_a_large_tokenizer_that_was_tried_is_not_in_memory_while_a_build_is_made(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["text_config"]["vocab_size"] += WORDS
    config["image_token_id"] += WORDS
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    known = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["vocab"] |= {f"word number {number}": known + number for number in range(WORDS)}
    for control in tokenizer["added_tokens"]:
        control["id"] += WORDS
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    command = [sys.executable, "-c", ORDERED, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 30 * MIB
