"""What the GPU check measures: the full-size model on a card, or the same steps at tiny size where there is none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.checkpoints.synthetic import Shape
from glmserve.engine.runtime.device import DeviceName

TINY = Shape("gpu-check-tiny", layers=2, ffn=256, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)


@dataclass(frozen=True)
class Plan:
    """Handed to both halves of the check as JSON; paths are text. `precision` is what both compute in; with `kv` "int8"
    the build keeps KV so, and only its steps are run."""

    checkpoint: str
    build: str
    image: str
    device: DeviceName
    precision: str
    rows: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    chunk_tokens: int
    least_context: int
    most_context: int
    threads: int
    kv: str = "same"

    @staticmethod
    def read(path: Path) -> Plan:
        values = json.loads(path.read_text("utf-8"))
        return Plan(**values | {"rows": tuple(values["rows"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")


def full_size(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The real model on a card, at the rows that the target names."""
    return Plan(
        str(checkpoint),
        str(build),
        str(image),
        "cuda",
        "bf16",
        rows=(1, 8, 32),
        prompt_tokens=512,
        new_tokens=64,
        chunk_tokens=256,
        least_context=1024,
        most_context=32_768,
        threads=1,
    )


def rehearsal(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The same steps in seconds on a processor."""
    return Plan(
        str(checkpoint),
        str(build),
        str(image),
        "cpu",
        "fp32",
        rows=(1, 8, 32),
        prompt_tokens=24,
        new_tokens=6,
        chunk_tokens=16,
        least_context=64,
        most_context=16_384,
        threads=1,
    )
