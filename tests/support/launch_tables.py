"""The tables in docs/benchmarks.md of what a step on CUDA launches, from what was recorded without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

LIST = Path(__file__).parents[1] / "cuda/launches.json"
"""What `tests/cuda/launch_list.py` records."""
REAL_LAYERS = 40
HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 4096, 13_696, 32, 2, 128, 151_552
"""Sizes of GLM-4.6V-Flash's text model."""
WEIGHT_BYTES = {"bf16": 2.0, "int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32}
"""Of one weight of a linear layer, with its share of a scale; the head of an int4 build is in 8 bits."""
BANDWIDTHS = {"H200": 4.8e12, "RTX 4090": 1.008e12}
"""Bytes a second, from NVIDIA's data sheets."""
LAUNCH_S = 2e-6
"""What a small kernel in a captured graph is taken to cost."""
LENGTH = 1000
"""Tokens in each row."""
PRODUCTS = ("cublasGemmEx", "GemmFpAIntB", "fpA_intB_gemv")

Step = dict[str, dict[str, int]]
"""Launches by kernel: those of each `layer`, and of the `rest` of the step."""
Launches = dict[str, dict[str, Step]]
"""By build and by the step's tokens."""


def recorded() -> Launches:
    """The list as it was recorded, on all kinds of GPU alike."""
    listed: Launches = json.loads(LIST.read_text("utf-8"))
    return listed


def launches(step: Step, layers: int) -> int:
    """Of a step of a model with so many layers."""
    return layers * sum(step["layer"].values()) + sum(step["rest"].values())


def launches_table() -> str:
    """Launches of a layer, and of a step of the real model, by build and by the step's tokens."""
    listed = recorded()
    tokens = list(next(iter(listed.values())))
    rows = [f"| launches a layer, a step | {' | '.join(f'{each} tokens' for each in tokens)} |"]
    rows.append("|---" * (1 + len(tokens)) + "|")
    for build, steps in listed.items():
        cells = [f"{sum(step['layer'].values())}, {launches(step, REAL_LAYERS):,}" for step in steps.values()]
        rows.append(f"| {build} | {' | '.join(cells)} |")
    return "\n".join(rows)


def kernels_table(tokens: str = "32") -> str:
    """The kernels of one layer in a step that decodes so many rows, in every build."""
    listed = recorded()
    layers = [steps[tokens]["layer"] for steps in listed.values()]
    rest = [_rest(steps[tokens]) for steps in listed.values()]
    rows = [f"| kernel, {tokens} rows | {' | '.join(listed)} |", "|---" * (1 + len(listed)) + "|"]
    for kernel in sorted(set().union(*layers), key=str.casefold):
        rows.append(f"| `{kernel}` | {' | '.join(str(layer.get(kernel, '')) for layer in layers)} |")
    return "\n".join([*rows, f"| beside the layers | {' | '.join(map(str, rest))} |"])


def _rest(step: Step) -> int:
    return sum(step["rest"].values())


def step_table() -> str:
    """The estimate of a decode step: what memory allows, what the launches beside the products add, and the share of
    the memory's limit that is left."""
    listed = recorded()
    rows = [f"| estimate, ms a step | {' | '.join(f'{card}, {n} rows' for card in BANDWIDTHS for n in (1, 32))} |"]
    rows.append("|---" * (1 + 2 * len(BANDWIDTHS)) + "|")
    for build, steps in listed.items():
        cells = []
        for bandwidth in BANDWIDTHS.values():
            for tokens in ("1", "32"):
                memory_s = _read_bytes(build, int(tokens)) / bandwidth
                small_s = LAUNCH_S * _small_launches(steps[tokens])
                share = memory_s / (memory_s + small_s)
                cells.append(f"{1e3 * memory_s:.1f} + {1e3 * small_s:.1f} ({share:.0%})")
        rows.append(f"| {build} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _read_bytes(build: str, rows: int) -> float:
    """The weights and the rows' KV, each once."""
    precision, kv = build.split(", KV ")
    size = WEIGHT_BYTES[precision]
    attention = HIDDEN * HEAD_DIM * (HEADS + 2 * KV_HEADS) + HEADS * HEAD_DIM * HIDDEN
    layers = REAL_LAYERS * (attention + 3 * HIDDEN * FFN) * size
    head = HIDDEN * VOCABULARY * max(size, WEIGHT_BYTES["int8"])
    token = 2 * REAL_LAYERS * KV_HEADS * HEAD_DIM * (1 if kv == "int8" else 2)
    return layers + head + rows * LENGTH * token


def _small_launches(step: Step) -> int:
    """Launches of a step of the real model that read no weights."""
    layer, rest = (sum(n for name, n in step[part].items() if name not in PRODUCTS) for part in ("layer", "rest"))
    return REAL_LAYERS * layer + rest
