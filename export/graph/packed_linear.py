"""Linear layers that keep the codes they are published in: multiplied as they are, whatever their blocks and zeros."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.checkpoint.packed import PackedWeight
from export.graph.builder import CONTRIB, OnnxGraphBuilder

INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy level that multiplies in integers; on the CPU the others are several times slower."""


class PackedLinear:
    """Writes such layers into one graph, whose activations are of type `real`."""

    def __init__(self, g: OnnxGraphBuilder, real: ir.DataType) -> None:
        self._g, self._real = g, real
        self._sums: dict[tuple[str, int], ir.Value] = {}

    def is_bytewise(self, packed: PackedWeight) -> bool:
        """Whether a weight is what a processor multiplies bytes by: 8 bits, and a scale for each output."""
        return packed.is_per_output and packed.bits == 8 and self._real == ir.DataType.FLOAT

    def linear(self, x: ir.Value, packed: PackedWeight, name: str, title: str) -> ir.Value:
        """x [..., in] times the weight [out, in], transposed; its codes are called `title`.

        Offsets are no part of what MatMulNBits multiplies fast: each block's is multiplied by the sum of its inputs.
        """
        g, tensors = self._g, self._g.weights.lazy_packed(packed, self._real, title)
        if tensors.order is not None:
            x = g.op("Gather", [x, g.initializer(tensors.order)], f"{name}.ordered", axis=-1)
        inputs = [x, g.initializer(tensors.codes), g.initializer(tensors.scales)]
        if tensors.zeros is not None:
            inputs.append(g.initializer(tensors.zeros))
        product = g.op(
            "MatMulNBits",
            inputs,
            name if tensors.offsets is None else f"{name}.codes",
            CONTRIB,
            K=packed.shape[1],
            N=packed.shape[0],
            bits=packed.bits,
            block_size=packed.block,
            accuracy_level=INT8_ACTIVATIONS,
        )
        if tensors.offsets is None:
            return product
        sums = self._block_sums(x, packed)
        shift = g.op("FusedMatMul", [sums, g.initializer(tensors.offsets)], f"{name}.offset", CONTRIB, transB=1)
        return g.op("Add", [product, shift], name)

    def _block_sums(self, x: ir.Value, packed: PackedWeight) -> ir.Value:
        """The sums [..., blocks] of x [..., in] over each block; wherever there are offsets the blocks are whole."""
        g, key = self._g, (str(x.name), packed.block)
        if key not in self._sums:
            assert packed.shape[1] % packed.block == 0
            title = f"{x.name}.sums_of_{packed.block}"
            begin = g.op("Shape", [x], f"{title}.begin", end=-1)
            size = g.constant([packed.blocks, packed.block], np.int64)
            blocks = g.op("Reshape", [x, g.op("Concat", [begin, size], f"{title}.shape", axis=0)], f"{title}.blocks")
            self._sums[key] = g.op("ReduceSum", [blocks, g.constant([-1], np.int64)], title, keepdims=0)
        return self._sums[key]
