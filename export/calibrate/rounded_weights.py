"""A checkpoint's weights, some of them rounded to 4 bits before: their codes are taken from files as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors import safe_open

from export.checkpoint.derived import DerivedWeights
from export.checkpoint.packed import PackedWeight
from export.quantize.blockwise import BLOCK, blocks_of, signed_nibbles
from export.quantize.compensated import BITS

SCALES, CODES = ".scales", ".codes"
"""What is added to a weight's name in these files."""


@dataclass(frozen=True)
class RoundedWeights(DerivedWeights):
    """The weights of `base`; `rounded` has the file of those with codes of 4 bits."""

    rounded: Mapping[str, Path]

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        return None if name in self.rounded else self.base.packed(name, shape)

    def lazy_rounded(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        if bits != BITS or name not in self.rounded:
            return super().lazy_rounded(name, shape, bits, real, title)
        blocks = blocks_of(shape[1], BITS)
        codes = ir.Shape((shape[0], blocks, BLOCK[BITS] // 2))
        return self._scales(name, shape, real, title), ir.LazyTensor(
            lambda: ir.Tensor(self._read(name, CODES), name=title), ir.DataType.UINT8, codes, name=title
        )

    def lazy_unblocked(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        if bits != BITS or name not in self.rounded:
            return super().lazy_unblocked(name, shape, bits, real, title)
        return self._scales(name, shape, real, title), ir.LazyTensor(
            lambda: ir.Tensor(signed_nibbles(self._read(name, CODES)), name=title),
            ir.DataType.INT4,
            ir.Shape(shape),
            name=title,
        )

    def _scales(self, name: str, shape: tuple[int, int], real: ir.DataType, title: str) -> ir.LazyTensor:
        return ir.LazyTensor(
            lambda: ir.Tensor(self._read(name, SCALES).astype(real.numpy()), name=f"{title}.scales"),
            real,
            ir.Shape((shape[0], blocks_of(shape[1], BITS))),
            name=f"{title}.scales",
        )

    def _read(self, name: str, part: str) -> np.ndarray:
        with safe_open(self.rounded[name], framework="np") as file:
            array: np.ndarray = file.get_tensor(f"{name}{part}")
        return array
