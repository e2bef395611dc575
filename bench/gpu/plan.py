"""What the GPU check measures: the full-size model on a GPU, or the same steps at tiny size where there is none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.checkpoints.synthetic import Shape
from glmserve.engine.runtime.device import DeviceName

TINY = Shape("gpu-check-tiny", layers=2, ffn=256, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)


@dataclass(frozen=True)
class Plan:
    """Both halves of the check read it as JSON; paths are text. Both compute in `precision`. With `kv` "int8" the build
    keeps its KV cache in 8 bits, and the check only times its steps."""

    checkpoint: str
    build: str
    image: str
    device: DeviceName
    precision: str
    prompt_tokens: int
    new_tokens: int
    chunk_tokens: int
    least_context: int
    most_context: int
    rows: tuple[int, ...] = (1, 8, 32)
    threads: int = 1
    kv: str = "same"

    @staticmethod
    def read(path: Path) -> Plan:
        values = json.loads(path.read_text("utf-8"))
        return Plan(**values | {"rows": tuple(values["rows"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")


def full_size(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The real model on a GPU: prompts of 512 tokens, 64 new ones, chunks of 256, room for 1,024 and 32,768 tokens."""
    return Plan(str(checkpoint), str(build), str(image), "cuda", "bf16", 512, 64, 256, 1024, 32_768)


def rehearsal(checkpoint: Path, build: Path, image: Path) -> Plan:
    """The same steps in seconds on a CPU: smaller prompts, answers, chunks and room."""
    return Plan(str(checkpoint), str(build), str(image), "cpu", "fp32", 24, 6, 16, 64, 16_384)
