"""Linear layers in bytes on both sides: what a graph for a processor does to multiply rounded weights (`bytewise`)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph.builder import CONTRIB, OnnxGraphBuilder
from export.quantize.per_channel_int8 import MOST, group_names, group_size

_MIDDLE = 128
"""The code of zero among bytes without a sign, which is how a processor takes the left side."""


class Int8Linear:
    """Writes such layers into one graph; what several of them take is rounded once."""

    def __init__(self, g: OnnxGraphBuilder) -> None:
        self._g = g
        self._rounded: dict[str, list[tuple[ir.Value, ir.Value]]] = {}
        self._middle: ir.Value | None = None  # u8 [..., 1], `_MIDDLE` for each row

    def linear(self, x: ir.Value, weight: str, shape: tuple[int, int], name: str, title: str) -> ir.Value:
        """x [..., in] times the checkpoint's tensor `weight` [out, in], transposed; its codes are called `title`.

        Each row of each group of inputs is rounded by itself, so that rows do not change one another; the products of a
        group are added up as integers and scaled back by row and by output.
        """
        g, groups = self._g, self._g.weights.lazy_bytes(weight, shape, title)
        names, products = group_names(name, shape[1]), []
        for group, (codes, reach), lazy in zip(names, self._bytes_of(x, shape[1]), groups, strict=True):
            scales, rounded = map(g.initializer, lazy)
            one, middle = g.constant(1, np.float32), g.constant(_MIDDLE, np.uint8)
            sums = g.op("MatMulIntegerToFloat", [codes, rounded, one, scales, middle], f"{group}.sums", CONTRIB)
            products.append(g.op("Mul", [sums, reach], group))
        return products[0] if len(products) == 1 else g.op("Sum", products, name)

    def other_rows(self) -> None:
        """See `GraphWriter.other_rows`."""
        self._middle = None

    def _bytes_of(self, x: ir.Value, size: int) -> list[tuple[ir.Value, ir.Value]]:
        """Codes u8 [..., inputs of a group] and scales f32 [..., 1] of each group of x [..., size]."""
        name = str(x.name)
        if name not in self._rounded:
            titles, parts = group_names(name, size), [x]
            if len(titles) > 1:
                parts = [*self._g.op_many("Split", [x], titles, axis=-1, num_outputs=len(titles))]
            self._rounded[name] = [self._row_bytes(part, group_size(size)) for part in parts]
        return self._rounded[name]

    def _row_bytes(self, x: ir.Value, size: int) -> tuple[ir.Value, ir.Value]:
        """Codes and scales of the rows of x [..., size]: a row's largest value just has a code, and 0 is `_MIDDLE`."""
        g = self._g
        sizes = g.op("Abs", [x], f"{x.name}.sizes")
        reach = g.op("ReduceMax", [sizes, g.constant([-1], np.int64)], f"{x.name}.reach", keepdims=1)
        scale = g.op("Mul", [reach, g.constant(1 / MOST, np.float32)], f"{x.name}.scale")
        if self._middle is None:
            shape = g.op("Shape", [scale], f"{x.name}.scale_shape")
            self._middle = g.op("Expand", [g.constant(_MIDDLE, np.uint8), shape], f"{x.name}.middle")
        codes = g.op("QuantizeLinear", [x, scale, self._middle], f"{x.name}.codes", axis=-1, block_size=size)
        return codes, scale
