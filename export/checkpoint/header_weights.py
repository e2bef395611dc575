"""A checkpoint's weights as far as its headers tell: every name and shape is checked, no number is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.hard_links import StoredTensor, stored_tensors_in
from export.checkpoint.weights import Weights
from export.errors import BadShard


@dataclass(frozen=True)
class HeaderWeights(Weights):
    """Weights that are all zero and cost nothing; `peaks` holds, for each initializer, the bytes of memory that a
    build needs at most while it reads, converts and writes it."""

    tensors: dict[str, StoredTensor]
    peaks: dict[str, int]

    @staticmethod
    def of(weights: Weights) -> HeaderWeights:
        """Reads every header; raises BadShard for a file that is truncated, or lacks a tensor the index finds there."""
        tensors: dict[str, StoredTensor] = {}
        for path in weights.files:
            held = stored_tensors_in(path)
            _check_length(path, held)
            tensors |= {name: tensor for name, tensor in held.items() if weights.shards.get(name) == path.name}
        missing = sorted(weights.shards.keys() - tensors.keys())
        if missing:
            raise BadShard(
                f"{weights.shards[missing[0]]} is not the shard that the index means: it lacks {missing[0]}."
            )
        return HeaderWeights(weights.folder, weights.shards, tensors, {})

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        stored = self._stored(name, shape)
        self.peaks[name] = _peak(stored, 4 * prod(shape))
        return np.broadcast_to(np.float32(0), shape)

    def stored_dtype(self, name: str) -> ir.DataType:
        dtype = self._tensor(name).dtype
        if dtype is None:
            raise BadShard(f"Tensor {name} in {self.shards[name]} is not stored in fp32, fp16 or bf16.")
        return dtype

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

    def _stored(self, name: str, shape: tuple[int, ...]) -> int:
        """The bytes of a tensor in the checkpoint; raises BadShard when it is missing or of another shape."""
        self.stored_dtype(name)
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise BadShard(
                f"Tensor {name} in {self.shards[name]} is {list(tensor.shape)}, not {list(shape)} as in the config."
            )
        return tensor.length

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


def _check_length(path: Path, tensors: dict[str, StoredTensor]) -> None:
    """A whole file ends where its last tensor does."""
    end = max((tensor.offset + tensor.length for tensor in tensors.values()), default=0)
    if path.stat().st_size != end:
        raise BadShard(f"{path.name} is truncated: it has {path.stat().st_size} bytes, its header speaks of {end}.")
