"""Parts of a decoder's layer as few nodes, for ONNX Runtime on a GPU, where every node is a launch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.graph.builder import CONTRIB, PARTS
from export.graph.layers import GraphWriter, joined

_LARGE = {ir.DataType.FLOAT: 60, ir.DataType.BFLOAT16: 60, ir.DataType.FLOAT16: 15}
"""Exponents of two for `gated`; 15 is the largest that fp16 holds, and enough for values of some hundreds."""


def joined_projection(
    g: GraphWriter, x: ir.Value, sources: Sequence[str], inputs: int, outputs: Sequence[int], name: str
) -> ir.Value:
    """Linear layers with biases that take the same x [1, T, inputs], as one: their outputs side by side.

    The bias has more axes than it needs. One with a single axis would be folded into MatMulNBits, which then unpacks
    its weight in every step of more than a few tokens.
    """
    layers, title = list(zip(sources, outputs, strict=True)), f"{name}.weight"
    bits = g.bits_of(f"{sources[0]}.weight")  # all are rounded alike
    if bits is None:
        parts = [g.weights.lazy(f"{source}.weight", (out, inputs), g.real) for source, out in layers]
        weight = g.initializer(joined(parts, 0, title))
        weight.meta[PARTS] = tuple((str(part.name), out) for part, out in zip(parts, outputs, strict=True))
        product = g.linear(x, weight, f"{name}.matmul")
    else:
        rounded = [
            g.weights.lazy_rounded(f"{source}.weight", (out, inputs), bits, g.real, f"{source}.weight")
            for source, out in layers
        ]
        scales, codes = zip(*rounded, strict=True)
        both = joined(scales, 0, f"{title}.scales"), joined(codes, 0, title)
        product = g.multiply_rounded(x, both, (sum(outputs), inputs), bits, f"{name}.matmul")
    biases = [g.weights.read(f"{source}.bias", (out,)) for source, out in layers]
    bias = g.array(np.concatenate(biases).reshape(1, 1, -1), f"{name}.bias")
    return g.op("Add", [product, bias], name)


class Gating:
    """silu(gate) * up in one launch, for values [..., size].

    GatedRMSNorm divides by a root of a mean square and multiplies by a scale and by silu of its gate. Beside this
    epsilon no mean square counts, and the scale is what is divided by.
    """

    def __init__(self, g: GraphWriter, size: int) -> None:
        self._g, self._exponent = g, _LARGE[g.real]
        group = size & -size  # the largest power of two that divides it: each group of so many is a block of threads
        self._scale = g.array(np.full(group, 2.0**self._exponent), "mlp.gate_scale")

    def write(self, gate: ir.Value, up: ir.Value, name: str) -> ir.Value:
        epsilon = 4.0**self._exponent
        return self._g.op("GatedRMSNorm", [up, self._scale, gate], name, CONTRIB, epsilon=epsilon, activation="silu")
