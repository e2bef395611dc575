"""Weights made of other weights: what a class does not change is read from those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.checkpoint.weights import Weights


@dataclass(frozen=True)
class DerivedWeights(Weights):
    """The weights of `base`, as they are."""

    base: Weights

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self.base.read(name, shape)

    def read_rows(self, name: str, begin: int, end: int) -> np.ndarray:
        return self.base.read_rows(name, begin, end)

    def read_columns(self, name: str, begin: int, end: int) -> np.ndarray:
        return self.base.read_columns(name, begin, end)

    def stored_dtype(self, name: str) -> ir.DataType:
        return self.base.stored_dtype(name)

    def stored_shape(self, name: str) -> tuple[int, ...]:
        return self.base.stored_shape(name)

    def is_as_stored(self, name: str) -> bool:
        return self.base.is_as_stored(name)
