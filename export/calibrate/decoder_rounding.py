"""Rounds the decoder layer after layer, each by what the rounded ones before it give it; what is done stays on disk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from export.calibrate.budget import FEWEST, Harm, kept_in_8_bits
from export.calibrate.layer_runner import LayerRunner
from export.calibrate.rounded_weights import CODES, SCALES, RoundedWeights
from export.calibrate.states import Prompt
from export.checkpoint.weights import Weights
from export.quantize.compensated import Rounded, add_moments, empty_moments, rounded, values_of
from export.store.durable_io import sync
from glmserve.model.config import Checkpoint

_TRIED = 4
"""Every so many-th prompt tells what one rounded weight alone does to its layer."""
_HARMS = "harms"
_STATE, _POSITIONS, _COUNTS = "state", "positions", "counts"


@dataclass(frozen=True)
class RoundedDecoder:
    """The weights with their codes, and those that keep 8 bits instead."""

    weights: RoundedWeights
    in_8_bits: frozenset[str]


class DecoderRounding:
    """Rounds one decoder into a folder, where a killed run is gone on with."""

    def __init__(
        self, checkpoint: Checkpoint, weights: Weights, scale_type: np.dtype, bits: float, folder: Path
    ) -> None:
        """`scale_type` is what scales will be kept in, `bits` the average of a code's bits that may be spent."""
        self._checkpoint, self._weights, self._scale_type, self._bits = checkpoint, weights, scale_type, bits
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, begin: Callable[[], list[Prompt]], advance: Callable[[int], None]) -> RoundedDecoder:
        """Rounds every layer that is not yet; `begin` gives what goes into the first, and `advance` hears of each
        layer that is done."""
        layers = self._checkpoint.text.layers
        done = max((index for index in range(1, layers + 1) if self._states(index).exists()), default=0)
        advance(done)
        if done < layers:
            prompts = self._read_states(done) if done else begin()
            for index in range(done, layers):
                prompts = self._round_layer(index, prompts)
                advance(1)
        return self._result()

    def _round_layer(self, index: int, prompts: list[Prompt]) -> list[Prompt]:
        """Writes a layer's codes and harms; what goes into the next layer."""
        runner = LayerRunner(self._checkpoint, self._weights, index)
        moments = {linear.given: empty_moments(linear.shape[1]) for linear in runner.linears}
        for prompt in prompts:
            _, given = runner.run(prompt.state, prompt.positions)
            for name, x in given.items():
                add_moments(moments[name], x, prompt.counts)
        codes, values = dict[str, np.ndarray](), dict[str, np.ndarray]()
        harms = list[Harm]()
        for linear in runner.linears:
            found = rounded(runner.weights[linear.weight], moments[linear.given], self._scale_type)
            codes |= _tensors(linear.weight, found)
            values[linear.weight] = values_of(found, linear.shape[1])
        if self._bits > FEWEST:
            harms = self._harms(runner, values, prompts[::_TRIED])
        after = [replace(prompt, state=runner.run(prompt.state, prompt.positions, values)[0]) for prompt in prompts]
        described = {_HARMS: json.dumps([[harm.error, harm.size, harm.weights] for harm in harms])}
        self._write(self._codes(index), codes, described)
        self._write(self._states(index + 1), _packed(after))
        self._states(index).unlink(missing_ok=True)
        return after

    def _harms(self, runner: LayerRunner, values: dict[str, np.ndarray], prompts: list[Prompt]) -> list[Harm]:
        """What the rounded weights that are given the same do alone to the state after the layer."""
        together: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        for linear in runner.linears:
            together[linear.given][linear.weight] = values[linear.weight]
        wrong, right = dict.fromkeys(together, 0.0), 0.0
        for prompt in prompts:
            exact, _ = runner.run(prompt.state, prompt.positions)
            right += float(np.square(exact, dtype=np.float64).sum())
            for given, held in together.items():
                found, _ = runner.run(prompt.state, prompt.positions, held)
                wrong[given] += float(np.square(found - exact, dtype=np.float64).sum())
        return [
            Harm(wrong[given] / right, sum(value.size for value in held.values()), tuple(held))
            for given, held in together.items()
        ]

    def _result(self) -> RoundedDecoder:
        files, harms = dict[str, Path](), list[Harm]()
        for index in range(self._checkpoint.text.layers):
            path = self._codes(index)
            names, found = _header(path)
            files |= dict.fromkeys(names, path)
            harms += found
        return RoundedDecoder(
            RoundedWeights(self._weights.folder, self._weights.shards, self._weights, files),
            kept_in_8_bits(harms, self._bits),
        )

    def _codes(self, index: int) -> Path:
        return self._folder / f"layer-{index:03}.safetensors"

    def _states(self, index: int) -> Path:
        return self._folder / f"states-{index:03}.safetensors"

    def _write(self, path: Path, tensors: dict[str, np.ndarray], described: dict[str, str] | None = None) -> None:
        """A file that is there is whole."""
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, described or None)
        with partial.open("rb") as file:
            sync(file)
        partial.rename(path)

    def _read_states(self, index: int) -> list[Prompt]:
        held = load_file(self._states(index))
        numbers = sorted({int(name.split(".")[0]) for name in held})
        return [
            Prompt(held[f"{number}.{_STATE}"], held[f"{number}.{_POSITIONS}"], held[f"{number}.{_COUNTS}"])
            for number in numbers
        ]


def _tensors(name: str, found: Rounded) -> dict[str, np.ndarray]:
    return {f"{name}{SCALES}": found.scales, f"{name}{CODES}": found.packed}


def _header(path: Path) -> tuple[list[str], list[Harm]]:
    """The names of the weights in a file of codes, and what their rounding does."""
    with safe_open(path, framework="np") as file:
        names = [name.removesuffix(CODES) for name in list(file.keys()) if name.endswith(CODES)]
        found = json.loads((file.metadata() or {}).get(_HARMS, "[]"))
    return names, [Harm(error, size, tuple(weights)) for error, size, weights in found]


def _packed(prompts: list[Prompt]) -> dict[str, np.ndarray]:
    return {
        f"{number}.{part}": np.ascontiguousarray(getattr(prompt, part))
        for number, prompt in enumerate(prompts)
        for part in (_STATE, _POSITIONS, _COUNTS)
    }
