"""Writes small quantised checkpoints in the layouts that they are published in, from a checkpoint of numbers.

compressed-tensors' layers and GGUF's blocks are made by those packages. GPTQ's and AWQ's packages need a GPU's tool
chain, so their words are put together here, one code at a time, after their published layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

SHARD = "model.safetensors"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which place of a word, counted from its lowest bits, each of eight neighbours takes."""

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rounded:
    """A weight (out, in) in codes u8 counted from 0, with a scale and a zero point for each group of inputs."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    of_input: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The numbers f32 that the codes stand for."""
        steps = self.codes.astype(np.float32) - self.zeros[:, self.of_input].astype(np.float32)
        return steps * self.scales.astype(np.float32)[:, self.of_input]


def rounded(
    weight: np.ndarray, bits: int, group: int, symmetric: bool = True, order: np.ndarray | None = None
) -> Rounded:
    """Rounds plainly; `order` is the order in which the inputs are put into groups, as act-order does it."""
    out, inputs = weight.shape
    group = group if group > 0 else inputs
    most, count = (1 << bits) - 1, -(-inputs // group)
    of_input = np.arange(inputs) // group
    if order is not None:
        of_input[order] = np.arange(inputs) // group
    scales, zeros = np.empty((out, count), np.float16), np.empty((out, count), np.uint8)
    for index in range(count):
        part = weight[:, of_input == index].astype(np.float32)
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            scales[:, index] = np.maximum(np.abs(part).max(axis=1), 1e-4) / (most // 2)
            zeros[:, index] = (most + 1) // 2
        else:
            scales[:, index] = np.maximum(high - low, 1e-4) / most
            zeros[:, index] = np.clip(np.rint(-low / scales[:, index].astype(np.float32)), 1, most)
    steps = np.rint(weight.astype(np.float32) / scales.astype(np.float32)[:, of_input])
    codes = np.clip(steps + zeros[:, of_input], 0, most).astype(np.uint8)
    return Rounded(codes, scales, zeros, of_input)


def words_of(codes: np.ndarray, bits: int, places: tuple[int, ...] | None = None) -> np.ndarray:
    """Words i32 [rows, columns * bits / 32], one code after the other; `places` reorders the codes of a word."""
    count = 32 // bits
    rows, columns = codes.shape
    words = np.zeros((rows, -(-columns // count)), np.uint32)
    for index in range(count):
        every = codes[:, index::count].astype(np.uint32)
        place = index if places is None else places[index]
        words[:, : every.shape[1]] |= every << np.uint32(bits * place)
    return words.view(np.int32)


def gptq_layer(name: str, made: Rounded, bits: int, second: bool = False) -> Tensors:
    """GPTQ: codes packed along the inputs, zero points along the outputs; the first version's are one less."""
    zeros = made.zeros if second else made.zeros - np.uint8(1)
    return {
        f"{name}.qweight": np.ascontiguousarray(words_of(made.codes, bits).T),
        f"{name}.qzeros": words_of(np.ascontiguousarray(zeros.T), bits),
        f"{name}.scales": np.ascontiguousarray(made.scales.T),
        f"{name}.g_idx": made.of_input.astype(np.int32),
    }


def awq_layer(name: str, made: Rounded) -> Tensors:
    """AWQ's gemm: inputs by outputs, eight outputs a word in an order of their own."""
    return {
        f"{name}.qweight": words_of(np.ascontiguousarray(made.codes.T), 4, AWQ_PLACES),
        f"{name}.qzeros": words_of(np.ascontiguousarray(made.zeros.T), 4, AWQ_PLACES),
        f"{name}.scales": np.ascontiguousarray(made.scales.T),
    }


def compressed_layer(name: str, weight: np.ndarray, weights: dict[str, Any], activations: Any = None) -> Tensors:
    """A layer as compressed-tensors compresses it, with the scales that it finds itself."""
    import torch
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=activations)
    numbers = torch.from_numpy(weight.astype(np.float32))
    low, high = _ranges(numbers, args)
    scale, zero = calculate_qparams(low, high, args)
    state = {"weight": numbers, "weight_scale": scale}
    if not args.symmetric:
        state["weight_zero_point"] = zero
    format_name = "pack-quantized" if activations is None else "int-quantized"
    if args.type == "float":
        format_name = "float-quantized"
    made = BaseCompressor.get_value_from_registry(format_name).compress(state, scheme)
    return {f"{name}.{part}": _array(tensor) for part, tensor in made.items()}


def _ranges(numbers: Any, args: Any) -> tuple[Any, Any]:
    """The least and the largest number of each part that has a scale, shaped as its scales."""
    out, inputs = numbers.shape
    if args.strategy == "tensor":
        return numbers.amin().reshape(1), numbers.amax().reshape(1)
    if args.strategy == "block":
        height, width = args.block_structure
        tiles = numbers.reshape(out // height, height, inputs // width, width)
        return tiles.amin((1, 3)), tiles.amax((1, 3))
    groups = 1 if args.strategy == "channel" else inputs // args.group_size
    split = numbers.reshape(out, groups, -1)
    return split.amin(-1), split.amax(-1)


def _array(tensor: Any) -> np.ndarray:
    import ml_dtypes
    import torch

    if tensor.dtype == torch.float8_e4m3fn:
        return tensor.contiguous().view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
    return tensor.contiguous().numpy()


def publish(
    checkpoint: Path,
    folder: Path,
    quantization: dict[str, Any],
    layer: Callable[[str, np.ndarray], Tensors],
    layers: tuple[str, ...] = LAYERS,
) -> Path:
    """A copy of a checkpoint in which `layer` has written the text model's linear layers; the others stay numbers."""
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    held = load_file(checkpoint / SHARD)
    tensors: Tensors = {}
    for name, array in held.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight" and stem.startswith("model.language_model.layers") and stem.rsplit(".", 1)[1] in layers:
            tensors |= layer(stem, array)
        else:
            tensors[name] = array
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})
    return folder
