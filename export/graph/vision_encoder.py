"""Writes the image encoder's graph: uint8 patches in, one feature row for each image token out.

An image is a still picture, or two frames of a video that follow one another.

Follows `Glm4vVisionModel`: patch embedding, position table, blocks with axial rope, 2x2 merge, merger. All images of
a batch have the same patch grid; attention stays within an image.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.checkpoint.weights import Weights
from export.graph.builder import declare, graph_input
from export.graph.layers import GraphWriter
from export.precision import FP32, Numbers
from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS
from glmserve.model.config import Checkpoint
from glmserve.model.video_sampling import FRAMES_A_MOMENT

_PREFIX = "model.visual"


def vision_graph(
    checkpoint: Checkpoint, weights: Weights, numbers: Numbers = FP32, is_standard: bool = False
) -> ir.Model:
    """The whole encoder; inputs and output are `contract.VISION_INPUTS` and `VISION_OUTPUTS` with a batch axis B.

    Patches and positions are taken in fp32 whatever the precision: the first layer's inputs reach 255. `is_standard`:
    of ONNX's own operators only, for other runtimes (see `GraphWriter`).
    """
    return _VisionWriter(checkpoint, weights, numbers.gentle, is_standard).write()


def fold_patch_embedding(
    weight: np.ndarray, bias: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The first layer taking uint8: weight [out, 3 * patch * patch] and bias [out] in fp32.

    A still's frames are equal, so their weights add; (x / 255 - mean) / std is linear, so it moves into both:
    W' = sum_t(W) / (255 std), b' = b - sum(W mean / std). `weight` is the checkpoint's [out, 3, frames, patch, patch].
    """
    frames = weight.astype(np.float64).sum(axis=2)  # [out, 3, patch, patch]
    scale = 1.0 / np.asarray(std, np.float64)[:, None, None]
    shift = np.asarray(mean, np.float64)[:, None, None] * scale
    folded = (frames * scale / 255.0).reshape(len(weight), -1)
    return folded.astype(np.float32), (bias - (frames * shift).sum(axis=(1, 2, 3))).astype(np.float32)


def fold_frame_difference(weight: np.ndarray, std: tuple[float, ...]) -> np.ndarray:
    """What the first of two frames counts beyond their mean: weight [out, 3 * patch * patch] in fp32.

    With a and b the frames and m their mean, W0 a + W1 b = (W0 + W1) m + (W0 - W1) (a - m). A still has a = m, so that
    its numbers are those of `fold_patch_embedding` alone, bit by bit.
    """
    frames = weight.astype(np.float64)
    scale = 1.0 / np.asarray(std, np.float64)[:, None, None]
    difference = (frames[:, :, 0] - frames[:, :, 1]) * scale / 255.0
    return np.asarray(difference.reshape(len(weight), -1), np.float32)


class _VisionWriter:
    def __init__(self, checkpoint: Checkpoint, weights: Weights, numbers: Numbers, is_standard: bool) -> None:
        self._shape = checkpoint.vision
        self._images = checkpoint.images
        self._g = GraphWriter(weights, numbers, is_standard)

    def write(self) -> ir.Model:
        g, shape = self._g, self._shape
        patches = graph_input(IMAGE_PATCHES.name, ir.DataType.UINT8, ["B", "all_patches", self._images.patch_bytes])
        rows = graph_input(ROW_WEIGHTS.name, ir.DataType.FLOAT, ["B", "rows", shape.table_side])
        columns = graph_input(COLUMN_WEIGHTS.name, ir.DataType.FLOAT, ["B", "columns", shape.table_side])

        self._read_sizes(rows, columns)
        cos, sin = self._rope()
        x = self._embed(patches)  # [B, patches, hidden]
        x = g.rms_norm(x, f"{_PREFIX}.post_conv_layernorm", shape.hidden, shape.norm_eps, "embed.norm")
        x = g.op("Add", [x, self._positions(rows, columns)], "embed")
        for index in range(shape.depth):
            x = self._block(x, cos, sin, index)
        x = g.rms_norm(x, f"{_PREFIX}.post_layernorm", shape.hidden, shape.norm_eps, "final_norm")
        x = self._merger(self._downsample(x))
        features = declare(
            g.as_float(x), IMAGE_FEATURES.name, ir.DataType.FLOAT, ["B", "image_tokens", shape.out_hidden]
        )
        return g.model("vision_encoder", [patches, rows, columns], [features])

    def _read_sizes(self, rows: ir.Value, columns: ir.Value) -> None:
        """The batch size and the patch grid, read off the inputs' shapes."""
        g, merge = self._g, self._g.constant([self._shape.merge_size], np.int64)
        self._batch = g.op("Shape", [rows], "grid.batch", start=0, end=1)
        self._rows = g.op("Shape", [rows], "grid.rows", start=1, end=2)
        self._columns = g.op("Shape", [columns], "grid.columns", start=1, end=2)
        self._block_rows = g.op("Div", [self._rows, merge], "grid.block_rows")
        self._block_columns = g.op("Div", [self._columns, merge], "grid.block_columns")

    def _embed(self, patches: ir.Value) -> ir.Value:
        g, shape, images = self._g, self._shape, self._images
        source = f"{_PREFIX}.patch_embed.proj"
        side = images.patch_size
        weight = g.weights.read(f"{source}.weight", (shape.hidden, 3, images.temporal_patch_size, side, side))
        bias = g.weights.read(f"{source}.bias", (shape.hidden,))
        folded, shift = fold_patch_embedding(weight, bias.astype(np.float64), images.mean, images.std)
        mean, beyond = self._frames(g.cast(patches, ir.DataType.FLOAT, "embed.pixels"))
        weight_value = g.array(folded, f"{source}.folded_weight", ir.DataType.FLOAT)
        bias_value = g.array(shift, f"{source}.folded_bias", ir.DataType.FLOAT)
        x = g.linear(mean, weight_value, "embed.patches", bias_value)
        if images.temporal_patch_size == FRAMES_A_MOMENT:
            difference = g.array(
                fold_frame_difference(weight, images.std), f"{source}.folded_difference", ir.DataType.FLOAT
            )
            x = g.op("Add", [x, g.linear(beyond, difference, "embed.difference")], "embed.both")
        return g.as_real(x)

    def _frames(self, pixels: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The mean of each image's frames, and how far the first is from it; both [B, patches, patch_bytes]."""
        g, one = self._g, self._g.constant([1], np.int64)
        places = g.op("Mul", [self._rows, self._columns], "grid.patches")
        width, minus_one = (g.constant([size], np.int64) for size in (self._images.patch_bytes, -1))
        shape = g.op("Concat", [self._batch, minus_one, places, width], "embed.frames_shape", axis=0)
        frames = g.op("Reshape", [pixels, shape], "embed.frames")  # [B, frames, patches, patch_bytes]
        mean = g.op("ReduceMean", [frames, one], "embed.mean", keepdims=0)
        first = g.op("Slice", [frames, g.constant([0], np.int64), one, one], "embed.first_frame")
        first = g.op("Squeeze", [first, one], "embed.first")
        return mean, g.op("Sub", [first, mean], "embed.beyond_mean")

    def _positions(self, rows: ir.Value, columns: ir.Value) -> ir.Value:
        """The position table resampled to the grid, rows first, then columns. [B, patches, hidden]"""
        g, side, hidden = self._g, self._shape.table_side, self._shape.hidden
        name = f"{_PREFIX}.embeddings.position_embedding.weight"
        table = g.weight(name, (side * side, hidden), ir.DataType.FLOAT)
        flat = g.op("Reshape", [table, g.constant([side, side * hidden], np.int64)], "positions.table")
        by_row = g.op("MatMul", [rows, flat], "positions.by_row")  # [B, rows, side * hidden]
        split = g.op("Reshape", [by_row, g.constant([0, 0, side, hidden], np.int64)], "positions.by_row_split")
        spread = g.op("Unsqueeze", [columns, g.constant([1], np.int64)], "positions.column_weights")
        resampled = g.op("MatMul", [spread, split], "positions.resampled")  # [B, rows, columns, hidden]
        return g.as_real(self._merge_order(resampled, self._batch, hidden, "positions"))

    def _rope(self) -> tuple[ir.Value, ir.Value]:
        """Cosine and sine of each patch's angles, half for row, half for column. [B, patches, head_dim / 2]"""
        g, quarter = self._g, self._shape.head_dim // 4
        spatial = self._shape.head_dim // 2
        inverse = 1.0 / self._shape.rope_theta ** (np.arange(0, spatial, 2, dtype=np.float32) / np.float32(spatial))
        frequencies = g.constant(inverse[None, :], np.float32)  # [1, quarter]
        width = g.constant([quarter], np.int64)
        one = g.constant([1], np.int64)
        angles = []
        for axis, size, name in ((1, self._rows, "row"), (0, self._columns, "column")):
            count = g.op("Squeeze", [size], f"rope.{name}_count")
            steps = g.op("Range", [g.constant(0, np.int64), count, g.constant(1, np.int64)], f"rope.{name}s")
            steps = g.op(
                "Unsqueeze", [g.cast(steps, ir.DataType.FLOAT, f"rope.{name}s_float"), one], f"rope.{name}_steps"
            )
            angle = g.op("Mul", [steps, frequencies], f"rope.{name}_angles")  # [rows or columns, quarter]
            angle = g.op("Unsqueeze", [angle, g.constant([axis], np.int64)], f"rope.{name}_angles_wide")
            grid = g.op("Concat", [self._rows, self._columns, width], f"rope.{name}_shape", axis=0)
            angles.append(g.op("Expand", [angle, grid], f"rope.{name}_grid"))
        both = g.op("Concat", angles, "rope.angles", axis=-1)  # [rows, columns, head_dim / 2]
        ordered = self._merge_order(both, one, spatial, "rope")  # [1, patches, head_dim / 2]
        tiles = g.op("Concat", [self._batch, one, one], "rope.tiles", axis=0)
        cos = g.op("Tile", [g.op("Cos", [ordered], "rope.cos_once"), tiles], "rope.cos")
        sin = g.op("Tile", [g.op("Sin", [ordered], "rope.sin_once"), tiles], "rope.sin")
        return g.as_real(cos), g.as_real(sin)

    def _merge_order(self, grid: ir.Value, batch: ir.Value, width: int, name: str) -> ir.Value:
        """[batch, rows, columns, width] -> [batch, patches, width] in merge-block order."""
        g, merge = self._g, self._g.constant([self._shape.merge_size], np.int64)
        last = g.constant([width], np.int64)
        shape = g.op(
            "Concat", [batch, self._block_rows, merge, self._block_columns, merge, last], f"{name}.block_shape", axis=0
        )
        blocks = g.op("Reshape", [grid, shape], f"{name}.blocks")
        blocks = g.op("Transpose", [blocks], f"{name}.ordered", perm=[0, 1, 3, 2, 4, 5])
        minus_one = g.constant([-1], np.int64)
        flat = g.op("Concat", [batch, minus_one, last], f"{name}.flat_shape", axis=0)
        return g.op("Reshape", [blocks, flat], f"{name}.patches")

    def _block(self, x: ir.Value, cos: ir.Value, sin: ir.Value, index: int) -> ir.Value:
        g, shape = self._g, self._shape
        source, name = f"{_PREFIX}.blocks.{index}", f"blocks.{index}"
        g.other_rows()
        normed = g.rms_norm(x, f"{source}.norm1", shape.hidden, shape.norm_eps, f"{name}.attn.norm")
        sizes = (shape.hidden, 3 * shape.hidden)
        qkv = g.projection(normed, f"{source}.attn.qkv", sizes, f"{name}.attn.qkv", has_bias=shape.attention_bias)
        q, k, v = g.op_many("Split", [qkv], [f"{name}.attn.{part}" for part in "qkv"], axis=-1, num_outputs=3)
        q, k = (
            g.op("RotaryEmbedding", [part, cos, sin], f"{name}.attn.{letter}_rotated", num_heads=shape.heads)
            for part, letter in ((q, "q"), (k, "k"))
        )
        scale = float(shape.head_dim**-0.5)
        mixed = g.attention(q, k, v, shape.heads, scale, f"{name}.attn.mixed")
        attention = g.projection(mixed, f"{source}.attn.proj", (shape.hidden, shape.hidden), f"{name}.attn")
        x = g.op("Add", [x, attention], f"{name}.attn.residual")
        normed = g.rms_norm(x, f"{source}.norm2", shape.hidden, shape.norm_eps, f"{name}.mlp.norm")
        mlp = self._gated_mlp(normed, f"{source}.mlp", (shape.hidden, shape.out_hidden), f"{name}.mlp")
        return g.op("Add", [x, mlp], f"{name}.mlp.residual")

    def _gated_mlp(self, x: ir.Value, source: str, sizes: tuple[int, int], name: str) -> ir.Value:
        g = self._g
        gate = g.projection(x, f"{source}.gate_proj", sizes, f"{name}.gate")
        up = g.projection(x, f"{source}.up_proj", sizes, f"{name}.up")
        return g.projection(g.swiglu(gate, up, f"{name}.gated"), f"{source}.down_proj", sizes[::-1], name)

    def _downsample(self, x: ir.Value) -> ir.Value:
        """The 2x2 convolution over a block is a linear layer over its patches laid end to end."""
        g, shape, merge = self._g, self._shape, self._shape.merge_size
        width = merge * merge * shape.hidden
        blocks = g.op("Reshape", [x, g.constant([0, -1, width], np.int64)], "downsample.blocks")
        source = f"{_PREFIX}.downsample"
        kernel = g.weights.read(f"{source}.weight", (shape.out_hidden, shape.hidden, merge, merge))
        flat = kernel.astype(np.float32).transpose(0, 2, 3, 1).reshape(shape.out_hidden, width)
        weight = g.array(flat, f"{source}.flat_weight")
        return g.linear(blocks, weight, "downsample", g.weight(f"{source}.bias", (shape.out_hidden,)))

    def _merger(self, x: ir.Value) -> ir.Value:
        g, width, source = self._g, self._shape.out_hidden, f"{_PREFIX}.merger"
        g.other_rows()
        x = g.projection(x, f"{source}.proj", (width, width), "merger.proj")
        norm = f"{source}.post_projection_norm"
        scale, bias = g.weight(f"{norm}.weight", (width,)), g.weight(f"{norm}.bias", (width,))
        x = g.op("LayerNormalization", [x, scale, bias], "merger.norm", axis=-1, epsilon=1e-5)
        x = g.op("Gelu", [x], "merger.gelu")
        return self._gated_mlp(x, source, (width, self._shape.ffn), "merger")
