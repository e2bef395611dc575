"""A checkpoint's weights with adapters merged into them, a few rows at a time, whenever a tensor is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.checkpoint.derived import DerivedWeights
from export.checkpoint.lora.adapter import Adapter, Change
from export.checkpoint.packed import PackedWeight
from export.checkpoint.weights import Weights

_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class MergedWeights(DerivedWeights):
    """The weights of `base`, each changed by `changes` in their order. Sums are made in fp32 and rounded once, to the
    type that the checkpoint stores the tensor in."""

    changes: dict[str, list[Change]]

    @staticmethod
    def of(base: Weights, adapters: Sequence[Adapter]) -> Weights:
        """The weights with all adapters merged, one after the other; `base` itself where there are none."""
        if not adapters:
            return base
        changes: dict[str, list[Change]] = defaultdict(list)
        for adapter in adapters:
            for name, change in adapter.changes.items():
                changes[name].append(change)
        return MergedWeights(base.folder, base.shards, base, dict(changes))

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._merged(name, self.base.read(name, shape), 0, slice(None))

    def read_rows(self, name: str, begin: int, end: int) -> np.ndarray:
        return self._merged(name, self.base.read_rows(name, begin, end), begin, slice(None))

    def read_columns(self, name: str, begin: int, end: int) -> np.ndarray:
        return self._merged(name, self.base.read_columns(name, begin, end), 0, slice(begin, end))

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        return None if name in self.changes else self.base.packed(name, shape)

    def lazy_bytes(self, name: str, shape: tuple[int, int], title: str) -> list[tuple[ir.LazyTensor, ir.LazyTensor]]:
        is_changed = name in self.changes
        return super().lazy_bytes(name, shape, title) if is_changed else self.base.lazy_bytes(name, shape, title)

    def is_as_stored(self, name: str) -> bool:
        return name not in self.changes and self.base.is_as_stored(name)

    def _merged(self, name: str, array: np.ndarray, first: int, columns: slice) -> np.ndarray:
        """An array after all changes; it begins at row `first` of its tensor and has these columns of it."""
        changes = self.changes.get(name)
        if not changes:
            return array
        merged = array if array.flags.writeable else array.copy()
        at_once = max(1, _CHUNK_VALUES // (array.size // max(1, len(array))))
        for begin in range(0, len(array), at_once):
            end = min(begin + at_once, len(array))
            part = merged[begin:end].astype(np.float32)
            for change in changes:
                part = change.applied(part, slice(first + begin, first + end), columns)
            merged[begin:end] = part.astype(array.dtype)
        return merged
