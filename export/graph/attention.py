"""Attention over tokens that lie side by side: one of each row that is being answered, and stretches of prompts.

The linear layers see all tokens [1, T, ...] at once, so that one pass over the weights serves both. Attention alone
needs to know whose KV is whose: it takes the tokens apart into decoded rows [D, 1] and chunks [C, S], each with its own
rows of KV bound, and lays the results side by side again. What is done with a group is written in ONNX Runtime's own
operator, or in standard ones only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from export.graph.builder import CONTRIB, declare, graph_input
from export.graph.layers import GraphWriter
from glmserve.contract import DecoderGraph as Names
from glmserve.contract import RowGroup
from glmserve.model.config import TextModel

_K_SCALE = 12
"""Which of GroupQueryAttention's inputs the scale of the keys is."""


@dataclass(frozen=True)
class Group:
    """The graph inputs that say which tokens i64 [rows, width] make up a group, and how much its rows hold after this
    call: `last` i32 [rows] is that less one, `most` i32 [] the most of any row."""

    index: ir.Value
    last: ir.Value
    most: ir.Value

    @staticmethod
    def of(names: RowGroup, dims: list[int | str]) -> Group:
        return Group(
            graph_input(names.index, ir.DataType.INT64, dims),
            graph_input(names.seqlens_k, ir.DataType.INT32, dims[:1]),
            graph_input(names.total_length, ir.DataType.INT32, []),
        )


@dataclass(frozen=True)
class LayerKv:
    """A layer's keys and values of one group: both buffers [rows, kv_heads, context, head_dim] before the call, their
    names after it, and a scale for each where KV is rounded."""

    past: Sequence[ir.Value]
    present: Sequence[str]
    scales: Sequence[ir.Value]


class Attention(Protocol):
    """One way to write a group's attention."""

    def mix(self, tokens: ir.Value, kv: LayerKv, name: str) -> Sequence[ir.Value]:
        """From q, k and v side by side [rows, width, q + k + v] the mixed values [rows, width, heads * head_dim], and
        both buffers with this call's keys and values in them."""
        ...


class GroupedAttention:
    """GroupQueryAttention: one node, which writes both buffers in place.

    With `rope`, cos and sin [rows, rotary_dim / 2] whose first T rows are the step's tokens', it turns queries and keys
    as well: where a token stands among them is what it takes for the token's position.
    """

    def __init__(self, g: GraphWriter, shape: TextModel, group: Group, rope: Sequence[ir.Value] = ()) -> None:
        self._g, self._shape, self._group, self._rope = g, shape, group, rope

    def mix(self, tokens: ir.Value, kv: LayerKv, name: str) -> Sequence[ir.Value]:
        inputs = [tokens, None, None, *kv.past, self._group.last, self._group.most]
        how: dict[str, Any] = {}
        if self._rope:
            inputs += [*self._rope, self._group.index]
            how = {"do_rotary": 1, "rotary_interleaved": 1}
        if kv.scales:
            inputs += [*[None] * (_K_SCALE - len(inputs)), *kv.scales]
            how |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        return self._g.op_many(
            "GroupQueryAttention",
            inputs,
            [f"{name}.mixed", *kv.present],
            CONTRIB,
            **how,
            num_heads=self._shape.heads,
            kv_num_heads=self._shape.kv_heads,
            scale=float(self._shape.head_dim**-0.5),
        )


def filled_of(index: str | None) -> str:
    """The value i64 [rows]: how much of each row of KV is filled, in the group with the graph input `index`."""
    return f"{index}.filled"


class StandardAttention:
    """TensorScatter puts keys and values into their buffers, and opset 24's Attention reads as much as is filled.

    Attention multiplies what it leaves out by zero, so unlike GroupQueryAttention it needs buffers that hold numbers.
    """

    def __init__(self, g: GraphWriter, shape: TextModel, group: Group) -> None:
        self._g, self._shape = g, shape
        title = group.index.name
        width = g.op("Shape", [group.index], f"{title}.width", start=1, end=2)  # [1]
        last = g.cast(group.last, ir.DataType.INT64, f"{title}.last")
        after = g.op("Add", [last, g.constant(1, np.int64)], f"{title}.after")
        # a fresh row shorter than the group is wide is filled up behind its end, where the next call overwrites
        self._filled = g.op("Max", [after, width], filled_of(group.index.name))  # [rows]
        self._begin = g.op("Sub", [self._filled, width], f"{title}.begin")  # [rows]

    def mix(self, tokens: ir.Value, kv: LayerKv, name: str) -> Sequence[ir.Value]:
        assert not kv.scales
        g, shape = self._g, self._shape
        sizes = np.array([shape.heads, shape.kv_heads, shape.kv_heads]) * shape.head_dim
        q, *new = g.op_many(
            "Split", [tokens, g.constant(sizes, np.int64)], [f"{name}.{letter}" for letter in "qkv"], axis=-1
        )
        queries = self._by_head(q, shape.heads)
        buffers = [
            g.op("TensorScatter", [buffer, self._by_head(value, shape.kv_heads), self._begin], written, axis=2)
            for value, buffer, written in zip(new, kv.past, kv.present, strict=True)
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

    def _by_head(self, x: ir.Value, heads: int) -> ir.Value:
        """[rows, width, heads * head_dim] -> [rows, heads, width, head_dim]."""
        g = self._g
        split = g.op("Reshape", [x, g.constant([0, 0, heads, self._shape.head_dim], np.int64)], f"{x.name}_split")
        return g.op("Transpose", [split], f"{x.name}_by_head", perm=[0, 2, 1, 3])


class PackedAttention:
    """Writes each layer's attention; `inputs` grows by its past KV and `outputs` by its present KV.

    `context` fixes how many tokens a row of KV holds; None leaves it to the run.
    """

    def __init__(self, g: GraphWriter, shape: TextModel, context: int | None = None) -> None:
        self._g, self._shape, self._context = g, shape, context
        groups = {
            Names.DECODED: Group.of(Names.DECODED, ["D", 1]),
            Names.CHUNK: Group.of(Names.CHUNK, ["C", "S"]),
        }
        self.groups = groups
        kind = StandardAttention if g.is_standard else GroupedAttention
        self._attentions: dict[RowGroup, Attention] = {names: kind(g, shape, group) for names, group in groups.items()}
        self._past: dict[tuple[RowGroup, int], list[ir.Value]] = {}
        self.places = graph_input(Names.PLACES, ir.DataType.INT64, ["T"])
        self.inputs = list[ir.Value]()
        for group in groups.values():  # where the context is fixed no operator asks how much the fullest row holds
            self.inputs += [group.index, group.last, *([group.most] if context is None else [])]
        self.inputs.append(self.places)
        self.outputs: list[ir.Value] = []

    @property
    def turns(self) -> bool:
        """Whether attention turns queries and keys itself: GroupQueryAttention can where sizes are as it wants them."""
        return self._g.fuses and self._shape.head_dim % 16 == 0 and self._shape.rotary_dim % 16 == 0

    def turn_with(self, rope: Sequence[ir.Value]) -> None:
        """Said before the first layer where it `turns`: cos and sin, as `GroupedAttention` takes them."""
        for names, group in self.groups.items():
            self._attentions[names] = GroupedAttention(self._g, self._shape, group, rope)

    def write(self, qkv: ir.Value, scales: Sequence[ir.Value], places: ir.Value, layer: int) -> ir.Value:
        """Attends from queries, keys and values side by side, [1, T, q + k + v], over each token's own row; the results
        of `places` i64 [N] among all rows of both groups, [1, N, heads * head_dim]."""
        g, name = self._g, f"layers.{layer}.attn"
        packed = g.op("Squeeze", [qkv, g.constant([0], np.int64)], f"{name}.tokens")  # [T, q + k + v]
        mixed = [self._attend(packed, scales, names, layer) for names in self.groups]
        together = g.op("Concat", mixed, f"{name}.rows", axis=0)
        chosen = g.op("Gather", [together, places], f"{name}.chosen", axis=0)
        return g.op("Unsqueeze", [chosen, g.constant([0], np.int64)], f"{name}.mixed")

    def _attend(self, packed: ir.Value, scales: Sequence[ir.Value], names: RowGroup, layer: int) -> ir.Value:
        """One group's tokens through attention, laid flat: [rows * width, heads * head_dim]."""
        g, shape = self._g, self._shape
        name = f"layers.{layer}.attn.{names.name}"
        past = self.past(names, layer)
        tokens = g.op("Gather", [packed, self.groups[names].index], f"{name}.tokens", axis=0)
        kv = LayerKv(past, names.present(layer), scales)
        mixed, *present = self._attentions[names].mix(tokens, kv, name)
        for value, output in zip(present, kv.present, strict=True):
            declare(value, output, g.kv, self._cache_shape(names))
        self.inputs += past
        self.outputs += present
        flat = g.constant([-1, shape.heads * shape.head_dim], np.int64)
        return g.op("Reshape", [mixed, flat], f"{name}.flat")

    def past(self, names: RowGroup, layer: int) -> list[ir.Value]:
        """A layer's key and value buffers of one group, before the call."""
        if (names, layer) not in self._past:
            self._past[names, layer] = [
                graph_input(past, self._g.kv, self._cache_shape(names)) for past in names.past(layer)
            ]
        return self._past[names, layer]

    def _cache_shape(self, names: RowGroup) -> list[int | str]:
        context = self._context or f"{names.name}_context"
        return [f"{names.name}_rows", self._shape.kv_heads, context, self._shape.head_dim]
