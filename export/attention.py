"""Writes a decoder layer's attention over its KV buffer, in ONNX Runtime's own operator or in standard ones only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, GraphWriter
from glmserve.checkpoint import TextModel


@dataclass(frozen=True)
class Lengths:
    """How much each row holds after this call: `last` i32 [B] is that less one, `most` i32 [] the most of any row."""

    last: ir.Value
    most: ir.Value


class Attention(Protocol):
    """One way to write attention."""

    def mix(
        self, q: ir.Value, k: ir.Value, v: ir.Value, past: Sequence[ir.Value], name: str, present: Sequence[str]
    ) -> Sequence[ir.Value]:
        """The mixed values [B, S, heads * head_dim] of q, k and v [B, S, their heads * head_dim], and both buffers
        [B, kv_heads, context, head_dim] with this call's keys and values in them, named as `present` says."""
        ...


class GroupedAttention:
    """GroupQueryAttention: one node, which writes both buffers in place."""

    def __init__(self, g: GraphWriter, shape: TextModel, lengths: Lengths) -> None:
        self._g, self._shape, self._lengths = g, shape, lengths

    def mix(
        self, q: ir.Value, k: ir.Value, v: ir.Value, past: Sequence[ir.Value], name: str, present: Sequence[str]
    ) -> Sequence[ir.Value]:
        return self._g.op_many(
            "GroupQueryAttention",
            [q, k, v, *past, self._lengths.last, self._lengths.most],
            [f"{name}.mixed", *present],
            CONTRIB,
            num_heads=self._shape.heads,
            kv_num_heads=self._shape.kv_heads,
            scale=float(self._shape.head_dim**-0.5),
        )


class StandardAttention:
    """TensorScatter puts keys and values into their buffers, and opset 24's Attention reads as much as is filled.

    Attention multiplies what it leaves out by zero, so unlike GroupQueryAttention it needs buffers that hold numbers.
    """

    def __init__(self, g: GraphWriter, shape: TextModel, lengths: Lengths, input_ids: ir.Value) -> None:
        self._g, self._shape = g, shape
        tokens = g.op("Shape", [input_ids], "rows.tokens", start=1, end=2)  # [1]: S
        last = g.cast(lengths.last, ir.DataType.INT64, "rows.last")
        after = g.op("Add", [last, g.constant(1, np.int64)], "rows.after")
        # a fresh row shorter than S is filled up behind its end, where the next call overwrites
        self._filled = g.op("Max", [after, tokens], "rows.filled")  # [B]
        self._begin = g.op("Sub", [self._filled, tokens], "rows.begin")  # [B]

    def mix(
        self, q: ir.Value, k: ir.Value, v: ir.Value, past: Sequence[ir.Value], name: str, present: Sequence[str]
    ) -> Sequence[ir.Value]:
        g, shape = self._g, self._shape
        queries = self._by_head(q, shape.heads, f"{name}.q")
        buffers = [
            g.op(
                "TensorScatter",
                [buffer, self._by_head(new, shape.kv_heads, f"{name}.{letter}"), self._begin],
                written,
                axis=2,
            )
            for new, buffer, letter, written in zip((k, v), past, "kv", present, strict=True)
        ]
        mixed = g.op(
            "Attention",
            [queries, *buffers, None, None, None, self._filled],
            f"{name}.mixed_by_head",
            is_causal=1,
            scale=float(shape.head_dim**-0.5),
        )
        side_by_side = g.op("Transpose", [mixed], f"{name}.mixed_by_token", perm=[0, 2, 1, 3])
        width = g.constant([0, 0, shape.heads * shape.head_dim], np.int64)
        return [g.op("Reshape", [side_by_side, width], f"{name}.mixed"), *buffers]

    def _by_head(self, x: ir.Value, heads: int, name: str) -> ir.Value:
        """[B, S, heads * head_dim] -> [B, heads, S, head_dim]."""
        g = self._g
        split = g.op("Reshape", [x, g.constant([0, 0, heads, self._shape.head_dim], np.int64)], f"{name}_split")
        return g.op("Transpose", [split], f"{name}_by_head", perm=[0, 2, 1, 3])
