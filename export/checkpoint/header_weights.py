"""A checkpoint's weights as far as its headers tell: every name and shape is checked, no number is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.packed import PackedTensors, PackedWeight, rows_at_once
from export.checkpoint.stored_tensors import StoredTensor
from export.checkpoint.weights import Weights
from export.errors import BadShard

_FLOAT_BYTES = 4
_UNPACKING = 12
"""Bytes that a code takes at most while a few outputs' codes are unpacked."""


@dataclass(frozen=True)
class HeaderWeights(Weights):
    """Weights that are all zero and cost nothing; `peaks` holds, for each initializer, the bytes of memory that a
    build needs at most while it reads, converts and writes it."""

    tensors: dict[str, StoredTensor]
    peaks: dict[str, int]

    source: Weights = field(default_factory=lambda: Weights(Path(), {}))
    """The weights themselves, which know what is in codes."""

    @staticmethod
    def of(weights: Weights) -> HeaderWeights:
        """Reads every header; raises BadShard for a file that is truncated, or lacks a tensor the index finds there."""
        return HeaderWeights(weights.folder, weights.shards, weights.described(), {}, weights)

    def is_coded(self, name: str) -> bool:
        return self.source.is_coded(name)

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        return self.source.packed(name, shape)

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        stored = self._stored(name, shape)
        self.peaks[name] = _peak(stored, 4 * prod(shape))
        return np.broadcast_to(np.float32(0), shape)

    def stored_dtype(self, name: str) -> ir.DataType:
        tensor = self._tensor(name)
        if tensor.dtype is None:
            raise BadShard(f"Tensor {name} in {tensor.file} is not stored in fp32, fp16 or bf16.")
        return tensor.dtype

    def lazy(self, name: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.LazyTensor:
        is_cast = self.stored_dtype(name) != dtype
        stored = self._stored(name, shape)
        self.peaks[name] = _peak(stored, int(prod(shape) * dtype.itemsize) if is_cast else stored)
        return _zeros(super().lazy(name, shape, dtype))

    def lazy_rounded(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        scales, codes = super().lazy_rounded(name, shape, bits, real, title)
        self.peaks[title] = _peak(self._stored(name, shape), scales.nbytes + codes.nbytes)
        return _zeros(scales), _zeros(codes)

    def lazy_unblocked(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        scales, codes = super().lazy_unblocked(name, shape, bits, real, title)
        self.peaks[title] = _peak(self._stored(name, shape), scales.nbytes + codes.nbytes)
        return _zeros(scales), _zeros(codes)

    def lazy_bytes(self, name: str, shape: tuple[int, int], title: str) -> list[tuple[ir.LazyTensor, ir.LazyTensor]]:
        made, stored = super().lazy_bytes(name, shape, title), self._stored(name, shape)
        for scales, codes in made:
            written = scales.nbytes + codes.nbytes
            self.peaks[str(codes.name)] = _peak(stored // len(made), written)
        return [(_zeros(scales), _zeros(codes)) for scales, codes in made]

    def lazy_packed(self, packed: PackedWeight, real: ir.DataType, title: str) -> PackedTensors:
        made = super().lazy_packed(packed, real, title)
        for tensor in made.all:
            self.peaks[str(tensor.name)] = tensor.nbytes + _UNPACKING * rows_at_once(packed.shape[1]) * packed.shape[1]
        others = (None if each is None else _zeros(each) for each in (made.zeros, made.offsets, made.order))
        return PackedTensors(_zeros(made.scales), _zeros(made.codes), *others)

    def _stored(self, name: str, shape: tuple[int, ...]) -> int:
        """The bytes of a tensor in the checkpoint; raises BadShard when it is missing or of another shape."""
        self.stored_dtype(name)
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise BadShard(
                f"Tensor {name} in {tensor.file} is {list(tensor.shape)}, not {list(shape)} as in the config."
            )
        return max(tensor.length, _FLOAT_BYTES * prod(shape)) if self.is_coded(name) else tensor.length

    def _tensor(self, name: str) -> StoredTensor:
        if name not in self.tensors:
            raise BadShard(f"The checkpoint has no tensor {name}.")
        return self.tensors[name]


def _peak(stored: int, written: int) -> int:
    """Most bytes in memory: the mapped file and the array read from it, then that array and what is made of it."""
    return max(2 * stored, stored + written)


def _zeros(tensor: ir.LazyTensor) -> ir.LazyTensor:
    """A tensor of the same name, type and shape that is never read from a file."""
    shape, dtype = tuple(int(size) for size in tensor.shape.numpy()), tensor.dtype

    def load() -> ir.Tensor:
        return ir.Tensor(np.zeros(shape, dtype.numpy()), name=tensor.name)

    return ir.LazyTensor(load, dtype, tensor.shape, name=str(tensor.name))
