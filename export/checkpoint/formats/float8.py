"""Weights in FP8 with a scale for the whole, for each output, or for each tile.

No operator here multiplies FP8, so they are read as numbers and rounded anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from export.checkpoint.formats.published import PublishedTensor
from export.checkpoint.formats.quantization_config import QuantizationConfig
from export.checkpoint.formats.safetensors_layers import LayerTensors, layers_in
from export.checkpoint.stored_tensors import StoredTensor
from export.errors import BadShard

METHOD = "fp8"
_KINDS = (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))
_INVERSE = "weight_scale_inv"
WHY = "no operator multiplies by FP8"


def is_float8(kind: np.dtype) -> bool:
    """Whether numbers are of one of the types of eight bits."""
    return kind in _KINDS


def tensors_of(
    config: QuantizationConfig, stored: Mapping[str, StoredTensor], folder: Path
) -> dict[str, PublishedTensor]:
    """Every weight of the method `fp8`, by name; its scales multiply, although they are called inverse."""
    layers = layers_in(stored, folder, lambda part: part in (_INVERSE, "weight_scale"))
    return {layer.weight: float8_tensor(layer, _INVERSE if _INVERSE in layer else "weight_scale") for layer in layers}


def float8_tensor(layer: LayerTensors, scale: str) -> PublishedTensor:
    """The weight of a layer whose scales are its part `scale`: one, [out] or [out, 1], or one for each tile.

    Raises BadShard naming the layer where the scales make no tiles of one size.
    """
    weight, scales = layer.mapped("weight"), np.asarray(layer.mapped(scale), np.float32)
    if weight.ndim != 2 or not is_float8(weight.dtype):
        raise BadShard(f"{layer.name}.weight has a scale, but is no matrix in FP8.")
    out, inputs = weight.shape
    if scales.ndim < 2:
        scales = scales.reshape(-1, 1)
    if scales.ndim != 2 or (scales.shape[0] not in (1, out) and not _tiles(out, inputs, scales.shape)):
        raise BadShard(
            f"{layer.name}.{scale} is {list(layer.shape(scale))}: a weight of {out} x {inputs} takes one scale, one "
            "for each output, or one for each tile."
        )
    height, width = _tile(out, scales.shape[0]), _tile(inputs, scales.shape[1])

    def rows(begin: int, end: int) -> np.ndarray:
        of_rows = scales[np.arange(begin, end) // height][:, np.arange(inputs) // width]
        values: np.ndarray = layer.mapped("weight")[begin:end].astype(np.float32) * of_rows
        return values

    kind = "one scale" if scales.size == 1 else "a scale for each output"
    if scales.shape[1] > 1:
        kind = f"tiles of {height} x {width}"
    return PublishedTensor(
        layer.file("weight"), (out, inputs), layer.stored_bytes, rows, bits=8, scheme=f"FP8, {kind}", why=WHY
    )


def _tile(size: int, count: int) -> int:
    """The side of a tile of which `count` cover a size: a power of two where the last is cut, as publishers have it."""
    if size % count == 0:
        return size // count
    side = 1 << max(0, (-(-size // count) - 1).bit_length())
    return side if -(-size // side) == count else -(-size // count)


def _tiles(out: int, inputs: int, shape: tuple[int, ...]) -> bool:
    return all(-(-size // _tile(size, count)) == count for size, count in zip((out, inputs), shape, strict=True))
