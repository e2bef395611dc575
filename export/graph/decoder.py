"""Writes the decoder's graph: token ids and image features in, the next token out, KV written into its slot.

Follows `Glm4vTextModel`. Tokens lie side by side, whichever row they belong to; only attention takes them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.checkpoint.weights import Weights
from export.graph.attention import PackedAttention
from export.graph.builder import declare, graph_input
from export.graph.cuda_layers import Gating, joined_projection
from export.graph.kv_scales import kv_scales
from export.graph.layers import GraphWriter
from export.graph.sampler import sample
from export.precision import FP32, Numbers
from glmserve.build.rtx_engines import NEXT_RESIDUAL, RESIDUAL
from glmserve.contract import DecoderGraph as Names
from glmserve.model.config import Checkpoint

_PREFIX = "model.language_model"
_EMBEDDING = f"{_PREFIX}.embed_tokens"


@dataclass(frozen=True)
class Part:
    """A stretch of the decoder: layers [first, last), before them the embedding and behind them the head with its
    sampler, where it has these. Between parts the sum of what all layers before have added goes on, `residual`."""

    first: int
    last: int
    embeds: bool
    draws: bool

    @staticmethod
    def whole(layers: int) -> Part:
        """All of a decoder with so many layers."""
        return Part(0, layers, embeds=True, draws=True)


def decoder_graph(
    checkpoint: Checkpoint,
    weights: Weights,
    numbers: Numbers = FP32,
    is_standard: bool = False,
    part: Part | None = None,
    context: int | None = None,
) -> ir.Model:
    """The decoder, or a part of it; inputs and outputs are named in `contract.DecoderGraph`.

    `is_standard`: of ONNX's own operators only, for other runtimes (see `GraphWriter`). `context` fixes the tokens that
    a row of KV holds.
    """
    writer = _DecoderWriter(checkpoint, weights, numbers, is_standard, context)
    return writer.write(part or Part.whole(checkpoint.text.layers))


class _DecoderWriter:
    def __init__(
        self, checkpoint: Checkpoint, weights: Weights, numbers: Numbers, is_standard: bool, context: int | None
    ) -> None:
        self._shape = checkpoint.text
        self._g = GraphWriter(weights, numbers, is_standard)
        self._context = context
        if self._g.fuses:
            self._gating = Gating(self._g, self._shape.ffn)

    def write(self, part: Part) -> ir.Model:
        shape, inputs, outputs = self._shape, list[ir.Value](), list[ir.Value]()
        logits_index = graph_input(Names.LOGITS_INDEX, ir.DataType.INT64, ["N"])
        if part.embeds:
            residual = self._embed(inputs)
        else:
            tokens = "T" if part.first < shape.layers else "N"
            residual = graph_input(RESIDUAL, self._g.real, [1, tokens, shape.hidden])
            inputs.append(residual)
        if part.first < part.last:
            residual = self._layers(residual, part, logits_index, inputs, outputs)
        if part.draws:
            outputs = [*self._sample(residual, inputs), *outputs]
        else:
            tokens = "N" if part.last == shape.layers else "T"
            kept = self._g.op("Identity", [residual], NEXT_RESIDUAL)
            outputs = [declare(kept, NEXT_RESIDUAL, self._g.real, [1, tokens, shape.hidden]), *outputs]
        return self._g.model("decoder", inputs, outputs)

    def _layers(
        self,
        residual: ir.Value,
        part: Part,
        logits_index: ir.Value,
        inputs: list[ir.Value],
        outputs: list[ir.Value],
    ) -> ir.Value:
        """A part's layers, their KV among its inputs and outputs; the residual after them."""
        g, shape = self._g, self._shape
        positions = graph_input(Names.POSITION_IDS, ir.DataType.INT64, [3, "T"])
        inputs.append(positions)
        self._attend = PackedAttention(g, shape, self._context)
        self._rope(positions)
        if self._attend.turns:
            self._attend.turn_with(self._rope_rows(part.first))
        first = f"layers.{part.first}"
        normed = self._norm(residual, f"{first}.input_layernorm", f"{first}.attn.norm")
        places = self._attend.places
        for index in range(part.first, part.last):
            if index + 1 == shape.layers:  # past the last attention only the tokens that are drawn after matter
                inputs.append(logits_index)
                places = g.op("Gather", [places, logits_index], "head.places", axis=0)
                residual = g.op("Gather", [residual, logits_index], "head.residual", axis=1)  # [1, N, hidden]
            attention = self._attention(normed, places, index)
            normed, residual = self._add_and_norm(
                residual, attention, f"layers.{index}.post_attention_layernorm", f"layers.{index}.mlp.norm"
            )
            mlp = self._mlp(normed, index)
            if index + 1 < part.last:
                following = f"layers.{index + 1}"
                normed, residual = self._add_and_norm(
                    residual, mlp, f"{following}.input_layernorm", f"{following}.attn.norm"
                )
            else:
                residual = g.op("Add", [residual, mlp], f"layers.{index}.residual")
        inputs += self._attend.inputs
        outputs += self._attend.outputs
        return residual

    def _sample(self, residual: ir.Value, inputs: list[ir.Value]) -> list[ir.Value]:
        """The head and its sampler, whose own inputs are added; its outputs."""
        g, shape = self._g, self._shape
        hidden, head = self._head(residual)
        logits = declare(g.as_float(head), Names.LOGITS, ir.DataType.FLOAT, ["N", shape.vocabulary])
        sampler = sample(g, g.as_float(hidden), logits, shape.vocabulary)
        inputs += sampler.inputs
        return sampler.outputs

    def _rope(self, positions: ir.Value) -> None:
        """cos and sin [1, T, rotary_dim / 2]: each frequency turns with the position on its own axis (T, H or W)."""
        g, shape = self._g, self._shape
        pairs = shape.rotary_dim // 2
        axis_of = np.concatenate([np.full(n, i % 3) for i, n in enumerate(shape.mrope_section)])
        exponent = np.arange(0, shape.rotary_dim, 2, dtype=np.float32) / np.float32(shape.rotary_dim)
        inverse = (1.0 / shape.rope_theta**exponent).reshape(1, pairs)
        chosen = g.op("Gather", [positions, g.constant(axis_of, np.int64)], "rope.axes", axis=0)  # [pairs, T]
        steps = g.op("Transpose", [chosen], "rope.positions", perm=[1, 0])
        steps = g.cast(steps, ir.DataType.FLOAT, "rope.positions_float")
        angles = g.op("Mul", [steps, g.constant(inverse, np.float32)], "rope.token_angles")
        angles = g.op("Unsqueeze", [angles, g.constant([0], np.int64)], "rope.angles")
        cos = g.op("Cos", [angles], "rope.cos")
        self._cos = cos if self._attend.turns else g.as_real(cos)
        sin = g.op("Sin", [angles], "rope.sin")
        self._sin = sin if self._attend.turns else g.as_real(sin)

    def _rope_rows(self, layer: int) -> list[ir.Value]:
        """cos and sin [rows, rotary_dim / 2] of the step's tokens, filled up to as many rows as one of KV has room for:
        GroupQueryAttention asks for that many. The sizes come from shapes alone, so that no device has to be asked."""
        g, attend, zero = self._g, self._attend, self._g.constant([0], np.int64)
        tokens = g.op("Shape", [self._cos], "rope.tokens", start=1, end=2)
        room = [
            g.op("Shape", attend.past(names, layer)[:1], f"rope.{names.name}_room", start=2, end=3)
            for names in attend.groups
        ]
        lacking = g.op("Sub", [g.op("Max", [*room, tokens], "rope.room"), tokens], "rope.lacking")
        pads = g.op("Concat", [zero, zero, lacking, zero], "rope.pads", axis=0)
        rows = []
        for table, name in ((self._cos, "rope.cos_rows"), (self._sin, "rope.sin_rows")):
            flat = g.op("Squeeze", [table, zero], f"{name}_of_tokens")
            rows.append(g.as_real(g.op("Pad", [flat, pads], name)))
        return rows

    def _embed(self, inputs: list[ir.Value]) -> ir.Value:
        """Token embeddings [1, T, hidden], with row `image_slot` of the features where that is not 0."""
        g = self._g
        input_ids = graph_input(Names.INPUT_IDS, ir.DataType.INT64, ["T"])
        features = graph_input(Names.IMAGE_FEATURES, ir.DataType.FLOAT, ["M", self._shape.hidden])
        image_slot = graph_input(Names.IMAGE_SLOT, ir.DataType.INT64, ["T"])
        inputs += [input_ids, features, image_slot]
        table = g.table(f"{_EMBEDDING}.weight", (self._shape.vocabulary, self._shape.hidden))
        assert table.dtype is not None
        words = g.as_real(g.op("Gather", [table, input_ids], "embed.words", axis=0), table.dtype)
        images = g.op("Gather", [g.as_real(features), image_slot], "embed.images", axis=0)
        is_image = g.op("Greater", [image_slot, g.constant(0, np.int64)], "embed.is_image")
        is_image = g.op("Unsqueeze", [is_image, g.constant([-1], np.int64)], "embed.is_image_wide")
        tokens = g.op("Where", [is_image, images, words], "embed.tokens")
        return g.op("Unsqueeze", [tokens, g.constant([0], np.int64)], "embed")

    def _attention(self, x: ir.Value, places: ir.Value, index: int) -> ir.Value:
        """The layer's attention from x [1, T, hidden], at `places` [N]: [1, N, hidden]."""
        g, shape = self._g, self._shape
        source, name = f"{_PREFIX}.layers.{index}.self_attn", f"layers.{index}.attn"
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        g.other_rows()
        names, sizes = [f"{name}.{letter}" for letter in "qkv"], (q_size, kv_size, kv_size)
        sources = [f"{source}.{letter}_proj" for letter in "qkv"]
        if g.fuses:
            if any(g.keeps(source, (shape.hidden, size)) for source, size in zip(sources, sizes, strict=True)):
                qkv = g.op("Concat", g.projections(x, sources, shape.hidden, sizes, names), f"{name}.together", axis=-1)
            else:
                qkv = joined_projection(g, x, sources, shape.hidden, sizes, f"{name}.together")
            if not self._attend.turns:
                parts = g.op_many("Split", [qkv, g.constant(sizes, np.int64)], names, axis=-1)
                qkv = self._turned(parts, name)
        else:
            qkv = self._turned(g.projections(x, sources, shape.hidden, sizes, names), name)
        scales = self._kv_scales(index) if g.kv == ir.DataType.INT8 else []
        mixed = self._attend.write(qkv, scales, places, index)
        if index + 1 == shape.layers:
            g.other_rows()
        attention = g.projection(mixed, f"{source}.o_proj", (q_size, shape.hidden), f"{name}.o")
        return self._norm(attention, f"layers.{index}.post_self_attn_layernorm", name)

    def _turned(self, qkv: Sequence[ir.Value], name: str) -> ir.Value:
        """Queries, keys and values [1, T, ...] side by side, the first two turned by their positions."""
        q, k, v = qkv
        q = self._rotate(q, self._shape.heads, f"{name}.q_rotated")
        k = self._rotate(k, self._shape.kv_heads, f"{name}.k_rotated")
        return self._g.op("Concat", [q, k, v], f"{name}.qkv", axis=-1)

    def _kv_scales(self, index: int) -> list[ir.Value]:
        layer = f"layers.{index}"
        scales = kv_scales(self._g.weights, self._shape, f"{_PREFIX}.{layer}", f"{layer}.attn")
        return [self._g.initializer(scale) for scale in scales]

    def _rotate(self, x: ir.Value, heads: int, name: str) -> ir.Value:
        g, shape = self._g, self._shape
        return g.op(
            "RotaryEmbedding",
            [x, self._cos, self._sin],
            name,
            interleaved=1,
            num_heads=heads,
            rotary_embedding_dim=shape.rotary_dim,
        )

    def _mlp(self, x: ir.Value, index: int) -> ir.Value:
        g, shape = self._g, self._shape
        source, name = f"{_PREFIX}.layers.{index}.mlp", f"layers.{index}.mlp"
        both = g.projection(x, f"{source}.gate_up_proj", (shape.hidden, 2 * shape.ffn), f"{name}.gate_up")
        gate, up = g.op_many("Split", [both], [f"{name}.gate", f"{name}.up"], axis=-1, num_outputs=2)
        gated = self._gating.write(gate, up, f"{name}.gated") if g.fuses else g.swiglu(gate, up, f"{name}.gated")
        down = g.projection(gated, f"{source}.down_proj", (shape.ffn, shape.hidden), f"{name}.down")
        return self._norm(down, f"layers.{index}.post_mlp_layernorm", name)

    def _norm(self, x: ir.Value, source: str, name: str) -> ir.Value:
        return self._g.rms_norm(x, f"{_PREFIX}.{source}", self._shape.hidden, self._shape.norm_eps, name)

    def _add_and_norm(self, residual: ir.Value, x: ir.Value, source: str, name: str) -> tuple[ir.Value, ir.Value]:
        """The norm of residual + x, and the sum itself."""
        return self._g.add_and_norm(residual, x, f"{_PREFIX}.{source}", self._shape.hidden, self._shape.norm_eps, name)

    def _head(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The normed states [N, hidden] of x [1, N, hidden], and their logits [N, vocabulary]."""
        g, shape = self._g, self._shape
        last = g.op("Squeeze", [x, g.constant([0], np.int64)], "head.last")
        normed = self._norm(last, "norm", "head.norm")
        g.other_rows()
        source = _EMBEDDING if shape.tied_head else "lm_head"
        return normed, g.projection(normed, source, (shape.hidden, shape.vocabulary), "head", gentle=True)
