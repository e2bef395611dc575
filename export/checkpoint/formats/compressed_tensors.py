"""compressed-tensors, as llm-compressor writes it: whole codes packed into words or one a byte, or FP8."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from export.checkpoint.formats.bit_packing import WORD_BITS, unpack_columns
from export.checkpoint.formats.float8 import float8_tensor, is_float8
from export.checkpoint.formats.grouped import PER_OUTPUT, GroupedCodes
from export.checkpoint.formats.published import PublishedTensor
from export.checkpoint.formats.quantization_config import QuantizationConfig
from export.checkpoint.formats.safetensors_layers import LayerTensors, layers_in
from export.checkpoint.stored_tensors import StoredTensor
from export.errors import BadShard

METHOD = "compressed-tensors"
_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")
_BITS = (2, 4, 8)
_REMEDY = "Take a W4A16, W8A16, W8A8 or FP8 checkpoint of the model, or export the unquantised one."


def check(config: QuantizationConfig) -> tuple[str, ...]:
    """Raises BadArtifact for what none of our graphs computes; else sentences on what is left out."""
    groups = config.values.get("config_groups")
    groups = groups if isinstance(groups, dict) else {}
    named = {config.word("format", "dense"), *(_word(group, "format") for group in groups.values())} - {""}
    unknown = sorted(named - set(_FORMATS))
    if unknown:
        raise config.refused(f"format {unknown[0]} is not read, only {', '.join(_FORMATS)}", _REMEDY)
    if _word(config.values.get("sparsity_config"), "format") not in ("", "dense"):
        raise config.refused("sparsity_config has weights stored sparsely, which is not read", _REMEDY)
    if config.values.get("transform_config"):
        raise config.refused("transform_config turns activations while the model runs, which no graph does", _REMEDY)
    if config.values.get("kv_cache_scheme"):
        return ("kv_cache_scheme is left out: KV is kept as --kv says.",)
    return ()


def tensors_of(
    config: QuantizationConfig, stored: Mapping[str, StoredTensor], folder: Path
) -> dict[str, PublishedTensor]:
    """Every quantised weight by name. Raises BadShard naming a layer whose tensors do not fit together."""
    layers = layers_in(stored, folder, lambda part: part in ("weight_packed", "weight_scale"))
    return {layer.weight: _tensor(layer) for layer in layers}


def _tensor(layer: LayerTensors) -> PublishedTensor:
    if "weight_packed" in layer:
        return _of_words(layer)
    kind = layer.mapped("weight")
    if kind.ndim != 2:
        raise BadShard(f"{layer.name}.weight has the shape {list(kind.shape)}, a linear layer's has two sizes.")
    if is_float8(kind.dtype):
        return float8_tensor(layer, "weight_scale")
    if kind.dtype != np.int8:
        raise BadShard(f"{layer.name}.weight has a scale, but is stored as {kind.dtype}, not in bytes.")
    return _of_bytes(layer)


def _of_words(layer: LayerTensors) -> PublishedTensor:
    """Codes of 2, 4 or 8 bits packed along the inputs, the first in the lowest; zero points along the outputs."""
    out, inputs = _shape(layer)
    bits = next((bits for bits in _BITS if layer.shape("weight_packed") == (out, -(-inputs * bits // WORD_BITS))), 0)
    if not bits:
        raise BadShard(
            f"{layer.name}.weight_packed is {list(layer.shape('weight_packed'))}: a weight of {out} x {inputs} has no "
            f"codes of {', '.join(map(str, _BITS))} bits in it. {_REMEDY}"
        )
    groups, group = _grouping(layer, out, inputs)
    has_zeros = "weight_zero_point" in layer
    if has_zeros:
        layer.check("weight_zero_point", (-(-out * bits // WORD_BITS), groups))

    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        codes = unpack_columns(layer.mapped("weight_packed")[begin:end], bits)[:, :inputs]
        zeros = None
        if has_zeros:
            whole = unpack_columns(np.ascontiguousarray(layer.mapped("weight_zero_point").T), bits)
            zeros = np.ascontiguousarray(whole[:, begin:end].T)
        return codes, _scales(layer, begin, end), zeros

    return GroupedCodes((out, inputs), bits, group, read, has_zeros, _groups(layer, inputs)).published(
        layer.file("weight_packed"), layer.stored_bytes
    )


def _of_bytes(layer: LayerTensors) -> PublishedTensor:
    """Codes with a sign, one a byte, and zero points of the same kind."""
    out, inputs = layer.shape("weight")
    groups, group = _grouping(layer, out, inputs)
    has_zeros = "weight_zero_point" in layer
    if has_zeros:
        layer.check("weight_zero_point", layer.shape("weight_scale"))

    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        zeros = None
        if has_zeros:
            stored = layer.mapped("weight_zero_point").astype(np.int8).reshape(-1, groups)
            zeros = _without_sign(_rows(stored, begin, end, np.int8))
        return _without_sign(layer.mapped("weight")[begin:end]), _scales(layer, begin, end), zeros

    return GroupedCodes((out, inputs), 8, group, read, has_zeros, _groups(layer, inputs)).published(
        layer.file("weight"), layer.stored_bytes
    )


def _shape(layer: LayerTensors) -> tuple[int, int]:
    """The sizes that `weight_shape` holds."""
    held = layer.mapped("weight_shape").ravel().tolist()
    if len(held) != 2 or min(held) < 1:
        raise BadShard(f"{layer.name}.weight_shape holds {held}: a linear layer's weight has two sizes.")
    return int(held[0]), int(held[1])


def _scales(layer: LayerTensors, begin: int, end: int) -> np.ndarray:
    """The scales f32 [rows, groups] of some outputs; one may stand for all."""
    stored = layer.mapped("weight_scale")
    return _rows(stored.reshape(1, 1) if stored.size == 1 else stored, begin, end)


def _grouping(layer: LayerTensors, out: int, inputs: int) -> tuple[int, int]:
    """How many groups of inputs have scales, and how many inputs each has."""
    shape = layer.shape("weight_scale")
    if prod(shape) == 1:
        return 1, PER_OUTPUT
    columns = shape[1] if len(shape) == 2 else 0
    if columns < 1 or shape[0] != out or inputs % columns:
        raise BadShard(
            f"{layer.name}.weight_scale is {list(shape)}: a weight of {out} x {inputs} takes one scale, one for "
            f"each output, or one for each group of inputs, all groups of one size. {_REMEDY}"
        )
    return columns, PER_OUTPUT if columns == 1 else inputs // columns


def _groups(layer: LayerTensors, inputs: int) -> np.ndarray | None:
    """Each input's group, where act-order has mixed them."""
    if "weight_g_idx" not in layer:
        return None
    layer.check("weight_g_idx", (inputs,))
    groups = np.asarray(layer.mapped("weight_g_idx"), np.int64)
    return None if (groups < 0).any() else groups  # -1 throughout: never written


def _rows(array: np.ndarray, begin: int, end: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Rows of an array in a dtype; one row stands for all."""
    if len(array) == 1:
        return np.broadcast_to(array.astype(dtype), (end - begin, array.shape[1]))
    return array[begin:end].astype(dtype)


def _without_sign(codes: np.ndarray) -> np.ndarray:
    """Codes i8 counted from 0, u8."""
    counted: np.ndarray = np.ascontiguousarray(codes).view(np.uint8) ^ np.uint8(128)
    return counted


def _word(values: object, key: str) -> str:
    held = values.get(key) if isinstance(values, dict) else None
    return "" if held is None else str(held).lower()
