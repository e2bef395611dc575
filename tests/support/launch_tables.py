"""The tables in docs/benchmarks.md of what a step on CUDA launches, from what was recorded without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

LIST = Path(__file__).parents[1] / "cuda/launches.json"
"""What `tests/cuda/launch_list.py` records."""
REAL_LAYERS = 40

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
