"""Where each tensor of a safetensors file lies, as its header says, and the bytes there without reading the file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from export.errors import BadShard
from glmserve.build.safetensors_header import METADATA, read_header

STORED_TYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
"""The types of numbers a checkpoint may have, by safetensors' names."""
_ELEMENTS: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""What an element of a file is, by safetensors' names."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie in its file; `dtype` is None where they are no numbers that a graph computes in, and
    `element` safetensors' own name of their type."""

    file: str
    offset: int
    length: int
    dtype: ir.DataType | None
    shape: tuple[int, ...]
    element: str = ""

    def holds(self, value: ir.Value) -> bool:
        """Whether these are the initializer's very bytes, aligned to its elements as every reader may expect."""
        if self.dtype is None or self.dtype != value.dtype or value.shape is None:
            return False
        return self.shape == tuple(value.shape) and self.offset % self.dtype.itemsize == 0

    def mapped(self, folder: Path) -> np.ndarray:
        """The tensor, mapped and not read: what nobody looks at costs nothing, and what is read stays in memory for as
        long as the array lives. Raises BadShard for an element that is
        none of ours, or one that is not as large as its type and shape say."""
        element = _ELEMENTS.get(self.element)
        if element is None or self.length != prod(self.shape) * element.itemsize:
            raise BadShard(f"A tensor of {self.file} is stored as {self.element}, which is not read.")
        if self.length == 0:
            return np.zeros(self.shape, element)
        raw = np.memmap(folder / self.file, np.uint8, "r", self.offset, (self.length,))
        return raw.view(element).reshape(self.shape)


def stored_tensors_in(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file; raises BadShard when its header cannot be read or contradicts itself."""
    try:
        begin, header = read_header(path)
        header.pop(METADATA, None)
        tensors = {
            name: StoredTensor(
                path.name,
                begin + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
                STORED_TYPES.get(entry["dtype"]),
                tuple(entry["shape"]),
                entry["dtype"],
            )
            for name, entry in header.items()
        }
        _check_layout(path, begin, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadShard(f"{path.name} is truncated or not a safetensors file.") from None
    return tensors


def check_length(path: Path, tensors: dict[str, StoredTensor]) -> None:
    """Raises BadShard unless the file ends where its last tensor does."""
    end = max((tensor.offset + tensor.length for tensor in tensors.values()), default=0)
    if path.stat().st_size != end:
        raise BadShard(f"{path.name} is truncated: it has {path.stat().st_size} bytes, its header speaks of {end}.")


def _check_layout(path: Path, begin: int, tensors: dict[str, StoredTensor]) -> None:
    """From `begin` on tensors lie one right behind the other, each as long as its type and shape make it."""
    end = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length)):
        is_as_long = tensor.dtype is None or tensor.length == prod(tensor.shape) * tensor.dtype.itemsize
        if tensor.offset != end or not is_as_long:
            raise BadShard(
                f"{path.name} is damaged: its header puts tensor {name} at {tensor.offset} with {tensor.length} bytes, "
                f"which does not fit its type and shape {list(tensor.shape)}, or what stands before it."
            )
        end += tensor.length
