"""A checkpoint whose linear layers are published in codes: read as numbers, or as the codes that they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.checkpoint.packed import PackedWeight
from export.checkpoint.stored_tensors import StoredTensor
from export.checkpoint.weights import Weights
from export.errors import BadShard
from export.quantize.per_channel_int8 import group_names, group_size


@dataclass(frozen=True)
class PublishedTensor:
    """One tensor of such a checkpoint, under the name that an unquantised checkpoint gives it.

    `rows(begin, end)` reads numbers of its first axis; `dtype` is what they are kept in where no layer multiplies by
    them. A tensor in codes has the `bits` of a code, and its `scheme` in words; `packed` are the codes, or None where
    no graph multiplies by such, for the reason `why`.
    """

    file: str
    shape: tuple[int, ...]
    stored_bytes: int
    rows: Callable[[int, int], np.ndarray]
    dtype: ir.DataType = ir.DataType.FLOAT16
    bits: int = 0
    scheme: str = ""
    packed: PackedWeight | None = None
    why: str = ""

    @staticmethod
    def of(packed: PackedWeight, file: str, stored_bytes: int, scheme: str, bits: int | None = None) -> PublishedTensor:
        """One whose codes are kept; `bits` are the published ones where the kept are wider."""
        return PublishedTensor(
            file, packed.shape, stored_bytes, packed.values, bits=bits or packed.bits, scheme=scheme, packed=packed
        )


@dataclass(frozen=True)
class PublishedWeights(Weights):
    """Weights of a published `format`; what is not among `tensors` is read as it is stored. `notes` tell what of the
    format is left out."""

    format: str
    tensors: Mapping[str, PublishedTensor]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Files of weights that are no safetensors."""

    @property
    def files(self) -> list[Path]:
        return [*super().files, *(self.folder / name for name in self.others)]

    @property
    def names(self) -> Collection[str]:
        return self.tensors.keys() | {name for name in self.shards if not self.is_part(name)}

    @property
    def coded(self) -> dict[str, PublishedTensor]:
        """The tensors in codes."""
        return {name: tensor for name, tensor in self.tensors.items() if tensor.bits}

    def is_part(self, name: str) -> bool:
        """Whether a stored tensor is a part of one in codes, as its scales are."""
        layer, _, part = name.rpartition(".")
        return part != "bias" and self.is_coded(f"{layer}.weight")

    def is_coded(self, name: str) -> bool:
        return name in self.tensors and self.tensors[name].bits > 0

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        tensor = self.tensors.get(name)
        if tensor is None or tensor.packed is None:
            return None
        _check_shape(name, tensor.shape, shape)
        return tensor.packed

    def stored(self) -> dict[str, StoredTensor]:
        return {} if self.others else super().stored()

    def described(self) -> dict[str, StoredTensor]:
        plain = {} if self.others else super().described()
        return plain | {
            name: StoredTensor(tensor.file, 0, tensor.stored_bytes, tensor.dtype, tensor.shape)
            for name, tensor in self.tensors.items()
        }

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self.tensors.get(name)
        if tensor is None:
            return super().read(name, shape)
        _check_shape(name, tensor.shape, shape)
        return tensor.rows(0, shape[0])

    def read_rows(self, name: str, begin: int, end: int) -> np.ndarray:
        tensor = self.tensors.get(name)
        if tensor is None:
            return super().read_rows(name, begin, end)
        return tensor.rows(begin, min(end, tensor.shape[0]))

    def read_columns(self, name: str, begin: int, end: int) -> np.ndarray:
        tensor = self.tensors.get(name)
        if tensor is None:
            return super().read_columns(name, begin, end)
        return tensor.rows(0, tensor.shape[0])[:, begin:end]

    def stored_dtype(self, name: str) -> ir.DataType:
        tensor = self.tensors.get(name)
        return super().stored_dtype(name) if tensor is None else tensor.dtype

    def stored_shape(self, name: str) -> tuple[int, ...]:
        tensor = self.tensors.get(name)
        return super().stored_shape(name) if tensor is None else tensor.shape

    def is_as_stored(self, name: str) -> bool:
        return name not in self.tensors and super().is_as_stored(name)

    def lazy_bytes(self, name: str, shape: tuple[int, int], title: str) -> list[tuple[ir.LazyTensor, ir.LazyTensor]]:
        packed = self.packed(name, shape)
        if packed is None or not packed.is_per_output or packed.bits != 8:
            return super().lazy_bytes(name, shape, title)
        width = group_size(shape[1])
        return [
            packed.byte_tensors(number * width, width, group)
            for number, group in enumerate(group_names(title, shape[1]))
        ]


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise BadShard(f"Tensor {name} stands for {list(found)} numbers, its config asks for {list(wanted)}.")
