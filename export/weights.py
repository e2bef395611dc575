"""A checkpoint's safetensors read one tensor at a time, so that memory holds no more than the largest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from safetensors import SafetensorError, safe_open

from export.bytewise import byte_codes, group_size, output_scales
from export.failures import BadShard
from export.quantize import BLOCK, blocks_of, find_scales, round_to_codes

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
STORED_TYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
"""The types of numbers a checkpoint may have, by safetensors' names."""


@dataclass(frozen=True)
class Weights:
    """Where each named tensor lies; nothing is read before it is asked for."""

    folder: Path
    shards: dict[str, str]

    @staticmethod
    def open(folder: Path) -> Weights:
        """Reads the shard index (or the single file's header); raises BadShard naming the missing file."""
        if (folder / _INDEX).exists():
            try:
                shards = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"]
                if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                    raise ValueError
            except (OSError, ValueError, KeyError, TypeError):
                raise BadShard(f"The checkpoint's {_INDEX} has no readable weight_map.") from None
        elif (folder / _SINGLE).exists():
            shards = dict.fromkeys(_names(folder / _SINGLE), _SINGLE)
        else:
            raise BadShard(f"{folder} holds neither {_SINGLE} nor {_INDEX}; only safetensors are read.")
        for name in sorted(set(shards.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise BadShard(f"{_INDEX} names the shard {name}; only .safetensors files beside it are read.")
            if not (folder / name).is_file():
                raise BadShard(f"The checkpoint lacks its shard {name}.")
        return Weights(folder, shards)

    @property
    def files(self) -> list[Path]:
        """The safetensors files, sorted by name."""
        return [self.folder / name for name in sorted(set(self.shards.values()))]

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor in the checkpoint's own precision; raises BadShard when it is missing or of another shape."""
        with self._shard(name) as file:
            array: np.ndarray = file.get_tensor(name)
        if array.shape != shape:
            raise BadShard(f"Tensor {name} has shape {list(array.shape)}, its config asks for {list(shape)}.")
        return array

    def read_rows(self, name: str, begin: int, end: int) -> np.ndarray:
        """Rows [begin, end) of a tensor in the checkpoint's own precision; raises BadShard when it is missing."""
        with self._shard(name) as file:
            rows: np.ndarray = file.get_slice(name)[begin:end]
        return rows

    def read_columns(self, name: str, begin: int, end: int) -> np.ndarray:
        """Columns [begin, end) of a matrix in the checkpoint's own precision; raises BadShard when it is missing."""
        with self._shard(name) as file:
            columns: np.ndarray = file.get_slice(name)[:, begin:end]
        return columns

    def stored_dtype(self, name: str) -> ir.DataType:
        """The checkpoint's own precision of a tensor; raises BadShard when it is missing."""
        with self._shard(name) as file:
            return STORED_TYPES[file.get_slice(name).get_dtype()]

    def lazy(self, name: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.LazyTensor:
        """The initializer of a tensor, read only while it is written."""

        def load() -> ir.Tensor:
            return ir.Tensor(self.read(name, shape).astype(dtype.numpy(), copy=False), name=name)

        return ir.LazyTensor(load, dtype, ir.Shape(shape), name=name)

    def lazy_rounded(self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType) -> list[ir.LazyTensor]:
        """The initializers of a linear layer's weight [out, in] rounded to `bits`: scales, then codes.

        They are written in this order, so that one layer's scales at a time are kept for its codes.
        """
        kept: list[np.ndarray] = []

        def scales() -> ir.Tensor:
            found = find_scales(self.read(name, shape), bits).astype(real.numpy())
            kept[:] = [found]
            return ir.Tensor(found, name=f"{name}.scales")

        def codes() -> ir.Tensor:
            if not kept:
                scales()
            return ir.Tensor(round_to_codes(self.read(name, shape), kept.pop().astype(np.float32), bits), name=name)

        out, blocks = shape[0], blocks_of(shape[1], bits)
        return [
            ir.LazyTensor(scales, real, ir.Shape((out, blocks)), name=f"{name}.scales"),
            ir.LazyTensor(codes, ir.DataType.UINT8, ir.Shape((out, blocks, BLOCK[bits] * bits // 8)), name=name),
        ]

    def lazy_bytes(self, name: str, shape: tuple[int, int]) -> list[tuple[ir.LazyTensor, ir.LazyTensor]]:
        """The initializers of a linear layer's weight [out, in] for multiplying bytes: scales f32 [out] and codes i8
        [inputs of the group, out] of each group of its inputs."""
        width = group_size(shape[1])
        starts = range(0, shape[1], width)
        titles = [name] if len(starts) == 1 else [f"{name}.part{number}" for number in range(len(starts))]
        return [
            self._lazy_group(name, title, begin, begin + width, shape[0])
            for title, begin in zip(titles, starts, strict=True)
        ]

    def _lazy_group(self, name: str, title: str, begin: int, end: int, out: int) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        """Scales and codes, called `title`, of columns [begin, end); written in this order, as in `lazy_rounded`."""
        kept: list[np.ndarray] = []

        def scales() -> ir.Tensor:
            kept[:] = [output_scales(self.read_columns(name, begin, end))]
            return ir.Tensor(kept[0], name=f"{title}.scales")

        def codes() -> ir.Tensor:
            if not kept:
                scales()
            return ir.Tensor(byte_codes(self.read_columns(name, begin, end), kept.pop()), name=title)

        return (
            ir.LazyTensor(scales, ir.DataType.FLOAT, ir.Shape((out,)), name=f"{title}.scales"),
            ir.LazyTensor(codes, ir.DataType.INT8, ir.Shape((end - begin, out)), name=title),
        )

    @contextmanager
    def _shard(self, name: str) -> Iterator[Any]:
        """The open file that holds a tensor."""
        shard = self.shards.get(name)
        if shard is None:
            raise BadShard(f"The checkpoint has no tensor {name}.")
        try:
            with safe_open(self.folder / shard, framework="np") as file:
                yield file
        except SafetensorError:
            raise BadShard(f"{shard} is truncated or not a safetensors file (reading {name}).") from None


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except SafetensorError:
        raise BadShard(f"{path.name} is truncated or not a safetensors file.") from None
