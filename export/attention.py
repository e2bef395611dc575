"""Attention over tokens that lie side by side: one of each row that is being answered, and stretches of prompts.

The linear layers see all tokens [1, T, ...] at once, so that one pass over the weights serves both. Attention alone
needs to know whose KV is whose: it takes the tokens apart into decoded rows [D, 1] and chunks [C, S], each with its own
rows of KV bound, and lays the results side by side again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, GraphWriter, declare, graph_input
from glmserve.checkpoint import TextModel
from glmserve.contract import DecoderGraph as Names
from glmserve.contract import RowGroup


@dataclass(frozen=True)
class _Group:
    """The graph inputs that say which tokens [rows, width] make up a group, and how long its rows are after them."""

    index: ir.Value
    lengths: ir.Value
    total: ir.Value

    @staticmethod
    def of(names: RowGroup, dims: list[int | str]) -> _Group:
        return _Group(
            graph_input(names.index, ir.DataType.INT64, dims),
            graph_input(names.seqlens_k, ir.DataType.INT32, dims[:1]),
            graph_input(names.total_length, ir.DataType.INT32, []),
        )


class PackedAttention:
    """Writes each layer's attention; `inputs` grows by its past KV and `outputs` by its present KV."""

    def __init__(self, g: GraphWriter, shape: TextModel) -> None:
        self._g, self._shape = g, shape
        self._groups = {
            Names.DECODED: _Group.of(Names.DECODED, ["D", 1]),
            Names.CHUNK: _Group.of(Names.CHUNK, ["C", "S"]),
        }
        self.places = graph_input(Names.PLACES, ir.DataType.INT64, ["T"])
        self.inputs = [value for group in self._groups.values() for value in (group.index, group.lengths, group.total)]
        self.inputs.append(self.places)
        self.outputs: list[ir.Value] = []

    def write(self, q: ir.Value, k: ir.Value, v: ir.Value, places: ir.Value, layer: int) -> ir.Value:
        """Attends from q [1, T, heads * head_dim] over each token's own row; the results of `places` i64 [N] among
        all rows of both groups, [1, N, heads * head_dim]."""
        g, name = self._g, f"layers.{layer}.attn"
        packed = g.op("Concat", [q, k, v], f"{name}.qkv", axis=-1)
        packed = g.op("Squeeze", [packed, g.constant([0], np.int64)], f"{name}.tokens")  # [T, q + k + v]
        mixed = [self._attend(packed, names, group, layer) for names, group in self._groups.items()]
        together = g.op("Concat", mixed, f"{name}.rows", axis=0)
        chosen = g.op("Gather", [together, places], f"{name}.chosen", axis=0)
        return g.op("Unsqueeze", [chosen, g.constant([0], np.int64)], f"{name}.mixed")

    def _attend(self, packed: ir.Value, names: RowGroup, group: _Group, layer: int) -> ir.Value:
        """One group's tokens through attention, laid flat: [rows * width, heads * head_dim]."""
        g, shape = self._g, self._shape
        name = f"layers.{layer}.attn.{names.name}"
        past = [graph_input(past, g.real, self._cache_shape(names)) for past in names.past(layer)]
        rows = g.op("Gather", [packed, group.index], f"{name}.tokens", axis=0)  # [rows, width, q + k + v]
        mixed, *present = g.op_many(
            "GroupQueryAttention",
            [rows, None, None, *past, group.lengths, group.total],
            [f"{name}.mixed", *names.present(layer)],
            CONTRIB,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            scale=float(shape.head_dim**-0.5),
        )
        for value, output in zip(present, names.present(layer), strict=True):
            declare(value, output, g.real, self._cache_shape(names))
        self.inputs += past
        self.outputs += present
        flat = g.constant([-1, shape.heads * shape.head_dim], np.int64)
        return g.op("Reshape", [mixed, flat], f"{name}.flat")

    def _cache_shape(self, names: RowGroup) -> list[int | str]:
        return [f"{names.name}_rows", self._shape.kv_heads, f"{names.name}_context", self._shape.head_dim]
