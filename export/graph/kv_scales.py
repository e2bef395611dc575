"""Scales for KV kept in 8 bits: one for each channel of a layer's keys and values, from the weights alone.

A key is w . u + b, where u is what the layer's norm leaves: about as large in every direction. So its spread is the
length of w with the norm's own weights folded in, and the range is |b| and some spreads to either side. Two channels
that rope turns into one another share the length of both ranges. No image and no run is needed, so a checkpoint of
any size is read tensor by tensor; what values beyond the range cost shows when the build is verified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.checkpoint.weights import Weights
from glmserve.model.config import TextModel

SPREADS = 8.0
"""Spreads to either side of a channel's bias that its range covers."""
_LARGEST = 127


def kv_scales(weights: Weights, shape: TextModel, layer: str, name: str) -> list[ir.LazyTensor]:
    """The scales of a layer's keys and of its values, f32 [1, kv_heads, 1, head_dim] each, read while written.

    `layer` is the layer's name in the checkpoint, `name` what the scales' own names begin with.
    """

    def scales(kind: str, turns: bool) -> Callable[[], ir.Tensor]:
        def load() -> ir.Tensor:
            ranges = _ranges(weights, shape, layer, kind)
            if turns:
                ranges = _turned(ranges, shape.rotary_dim)
            return ir.Tensor((ranges[None, :, None, :] / _LARGEST).astype(np.float32), name=f"{name}.{kind}_scale")

        return load

    dims = ir.Shape((1, shape.kv_heads, 1, shape.head_dim))
    return [
        ir.LazyTensor(scales(kind, turns), ir.DataType.FLOAT, dims, name=f"{name}.{kind}_scale")
        for kind, turns in (("k", True), ("v", False))
    ]


def _ranges(weights: Weights, shape: TextModel, layer: str, kind: str) -> np.ndarray:
    """The largest size f32 [kv_heads, head_dim] that each channel is expected to reach before rope."""
    size = shape.kv_heads * shape.head_dim
    matrix = weights.read(f"{layer}.self_attn.{kind}_proj.weight", (size, shape.hidden)).astype(np.float32)
    bias = weights.read(f"{layer}.self_attn.{kind}_proj.bias", (size,)).astype(np.float32)
    norm = weights.read(f"{layer}.input_layernorm.weight", (shape.hidden,)).astype(np.float32)
    ranges: np.ndarray = np.abs(bias) + SPREADS * np.linalg.norm(matrix * norm, axis=1)
    return np.maximum(ranges, np.finfo(np.float32).tiny * _LARGEST).reshape(shape.kv_heads, shape.head_dim)


def _turned(ranges: np.ndarray, rotary_dim: int) -> np.ndarray:
    """As `ranges`, with the length of both for each pair of neighbours that rope turns."""
    pairs = ranges[:, :rotary_dim].reshape(len(ranges), -1, 2)
    lengths = np.repeat(np.linalg.norm(pairs, axis=-1), 2, axis=-1)
    return np.concatenate([lengths, ranges[:, rotary_dim:]], axis=-1)
