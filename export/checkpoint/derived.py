"""Weights made of other weights: what a class does not change is read from those."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.packed import PackedWeight
from export.checkpoint.stored_tensors import StoredTensor
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

    @property
    def files(self) -> list[Path]:
        return self.base.files

    @property
    def names(self) -> Collection[str]:
        return self.base.names

    def stored(self) -> dict[str, StoredTensor]:
        return self.base.stored()

    def described(self) -> dict[str, StoredTensor]:
        return self.base.described()

    def is_coded(self, name: str) -> bool:
        return self.base.is_coded(name)

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        return self.base.packed(name, shape)

    def is_as_stored(self, name: str) -> bool:
        return self.base.is_as_stored(name)
