"""The launch list: which kernels a step on CUDA launches, and how often, in every build and on three kinds of GPU.

`make cuda-launches` records it in launches.json.
The tests hold the code to what is recorded, and docs/benchmarks.md shows it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from launch_tables import LIST, Launches, Step

from bench.checkpoints.builds import build_of
from bench.checkpoints.synthetic import Shape, write_checkpoint
from export.precision import Target
from tests.cuda.fake_device import SITE, build_libraries

CARDS = (86, 89, 90)
"""Compute capabilities, times ten: RTX 30xx, RTX 40xx, and H100 or H200."""
BUILDS = tuple((precision, kv) for precision in ("bf16", "int8", "int4") for kv in ("same", "int8"))
"""Precision, and that of KV."""
_ROOT = Path(__file__).parents[2]
_LAYERS = (2, 3)
_CUTLASS = re.compile(r"_ZN7cutlass6KernelINS_4gemm6kernel(\d+)")
_OPERATION = re.compile(r"OP_(\w+)")
_INNERMOST = re.compile(r"\{[^{}]*\}")
_TIMEOUT_S = 300.0


def measured(folder: Path, card: int) -> Launches:
    """On one kind of GPU; `folder` keeps checkpoints, builds and libraries."""
    libraries = folder / f"libraries-{card}"
    if not libraries.exists():
        libraries.mkdir()
        build_libraries(libraries, 1, f"-DCAPABILITY={card}")
    builds = [_build(folder, layers, *kind) for kind in BUILDS for layers in _LAYERS]
    environment = os.environ | {"PYTHONPATH": f"{SITE}:{_ROOT}", "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, "-m", "tests.cuda.launches", *map(str, builds)]
    done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    traces = json.loads(done.stdout)
    names = _short_names({name for trace in traces for kernels in trace.values() for name in kernels})
    found = {}
    for (precision, kv), less, more in zip(BUILDS, traces[::2], traces[1::2], strict=True):
        found[f"{precision}, KV {kv}"] = {tokens: _step(less[tokens], more[tokens], names) for tokens in less}
    return found


def record() -> None:
    """Measures anew and writes the list; raises AssertionError where GPUs differ."""
    with TemporaryDirectory() as folder:
        first, *others = [measured(Path(folder), card) for card in CARDS]
    assert all(other == first for other in others), "GPUs differ: record them one by one"
    text = json.dumps(first, indent=1)
    LIST.write_text(_INNERMOST.sub(lambda kernels: " ".join(kernels[0].split()), text) + "\n", "utf-8")


def _build(folder: Path, layers: int, precision: str, kv: str) -> Path:
    """A build of a model with the real one's heads: 128 wide, 16 of queries for one of keys."""
    checkpoint = folder / f"{layers}-layers"
    if not checkpoint.exists():
        sizes = {"hidden": 2048, "heads": 16, "kv_heads": 1, "head_dim": 128, "vision_hidden": 64, "vision_heads": 1}
        write_checkpoint(Shape(checkpoint.name, layers=layers, ffn=512, vision_depth=1, **sizes), checkpoint)
    out = folder / f"{layers}-{precision}-{kv}"
    return build_of(checkpoint, precision, lambda _: None, Target.CUDA, out, kv)


def _step(less: dict[str, int], more: dict[str, int], names: dict[str, str]) -> Step:
    """From the launches of models with 2 layers and with 3."""
    layer, rest = Counter[str](), Counter[str]()
    for name in less | more:
        one = more.get(name, 0) - less.get(name, 0)
        layer[names[name]] += one
        rest[names[name]] += less.get(name, 0) - _LAYERS[0] * one
    return {part: {name: kernels[name] for name in sorted(kernels) if kernels[name]} for part, kernels in
            (("layer", layer), ("rest", rest))}  # fmt: skip


def _short_names(names: set[str]) -> dict[str, str]:
    """Readable names: without namespaces, types and template arguments, and of elementwise kernels the operation's."""
    ordered = sorted(names)
    done = subprocess.run(["c++filt"], input="\n".join(ordered), capture_output=True, text=True, check=True)
    return dict(zip(ordered, map(_short_name, done.stdout.splitlines()), strict=True))


def _short_name(name: str) -> str:
    if found := _CUTLASS.match(name):
        return name[found.end() : found.end() + int(found[1])]
    if found := _OPERATION.search(name):
        return found[1]
    while name != (name := re.sub(r"<[^<>]*>", "", name)):
        pass
    *outer, last = name.replace("(anonymous namespace)::", "").split("(")[0].split(" ")[-1].split("::")
    return f"{outer[-1]}::{last}" if last == "kernel_mha" else outer[-1] if last == "kernel" else last


if __name__ == "__main__":
    record()
