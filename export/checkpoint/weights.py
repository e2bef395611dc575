"""A checkpoint's safetensors read one tensor at a time, so that memory holds no more than the largest."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from safetensors import SafetensorError, safe_open

from export.checkpoint.packed import PackedTensors, PackedWeight
from export.checkpoint.stored_tensors import STORED_TYPES, StoredTensor, check_length, stored_tensors_in
from export.errors import BadShard
from export.quantize.blockwise import BLOCK, blocks_of, find_scales, round_to_codes, signed_nibbles
from export.quantize.per_channel_int8 import byte_codes, group_names, group_size, output_scales

READERS = 4
"""Files of weights that are read through at a time."""
EMBEDDING = "model.language_model.embed_tokens.weight"
"""A tensor of every checkpoint: what it is stored in stands for the others."""
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """Where each named tensor lies; nothing is read before it is asked for."""

    folder: Path
    shards: dict[str, str]

    @staticmethod
    def open(folder: Path) -> Weights:
        """Reads the shard index (or the single file's header); raises BadShard naming the missing file, or both where
        it is not clear which is meant."""
        if (folder / _INDEX).exists():
            try:
                shards = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"]
                if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                    raise ValueError
            except (OSError, ValueError, KeyError, TypeError):
                raise BadShard(f"The checkpoint's {_INDEX} has no readable weight_map.") from None
            if (folder / _SINGLE).exists() and set(shards.values()) != {_SINGLE}:
                raise BadShard(
                    f"The checkpoint has both {_SINGLE} and {_INDEX}, which speaks of other files: remove the one that "
                    "is not meant (transformers reads the former)."
                )
        elif (folder / _SINGLE).exists():
            shards = dict.fromkeys(_names(folder / _SINGLE), _SINGLE)
        else:
            raise BadShard(f"{folder} holds neither {_SINGLE} nor {_INDEX} nor GGUF files; no other weights are read.")
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

    @property
    def names(self) -> Collection[str]:
        """The tensors that can be read."""
        return self.shards

    def stored(self) -> dict[str, StoredTensor]:
        """Where the tensors lie that are read as they are stored; raises BadShard for a broken header. Another file may
        hold a tensor of the same name, which nobody means."""
        return {
            name: tensor
            for path in self.files
            for name, tensor in stored_tensors_in(path).items()
            if self.shards.get(name) == path.name
        }

    def described(self) -> dict[str, StoredTensor]:
        """Every tensor by name, with its type, its shape and the bytes that it takes; raises BadShard for a file that
        is truncated, or lacks a tensor the index finds there."""
        for path in self.files:
            check_length(path, stored_tensors_in(path))
        tensors = self.stored()
        missing = sorted(self.shards.keys() - tensors.keys())
        if missing:
            raise BadShard(f"{self.shards[missing[0]]} is not the shard that the index means: it lacks {missing[0]}.")
        return tensors

    def is_coded(self, name: str) -> bool:
        """Whether the checkpoint has a tensor in codes, not in numbers."""
        return False

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        """A linear layer's weight in the codes that the checkpoint has it in; None where it has numbers, or codes that
        no graph multiplies by. Raises BadShard for another shape."""
        return None

    def lazy_packed(self, packed: PackedWeight, real: ir.DataType, title: str) -> PackedTensors:
        """The initializers of such a weight, the codes called `title`, scales in `real`."""
        return packed.tensors(real, title)

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
        """The checkpoint's own precision of a tensor; raises BadShard when it is missing or not of a type we read."""
        with self._shard(name) as file:
            dtype = STORED_TYPES.get(file.get_slice(name).get_dtype())
        if dtype is None:
            raise BadShard(f"Tensor {name} in {self.shards[name]} is not stored in fp32, fp16 or bf16.")
        return dtype

    def stored_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises BadShard when it is missing."""
        with self._shard(name) as file:
            return tuple(file.get_slice(name).get_shape())

    def is_as_stored(self, name: str) -> bool:
        """Whether the checkpoint's files hold the very bytes that `read` gives of a tensor."""
        return name in self.shards

    def lazy(self, name: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.LazyTensor:
        """The initializer of a tensor, read only while it is written."""

        def load() -> ir.Tensor:
            return ir.Tensor(self.read(name, shape).astype(dtype.numpy(), copy=False), name=name)

        return ir.LazyTensor(load, dtype, ir.Shape(shape), name=name)

    def lazy_rounded(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        """The initializers, called `title`, of a linear layer's weight [out, in] rounded to `bits`: scales, then
        codes."""
        out, blocks = shape[0], blocks_of(shape[1], bits)
        return _scales_and_codes(
            title,
            lambda: find_scales(self.read(name, shape), bits).astype(real.numpy()),
            lambda scales: round_to_codes(self.read(name, shape), scales.astype(np.float32), bits),
            (real, (out, blocks)),
            (ir.DataType.UINT8, (out, blocks, BLOCK[bits] * bits // 8)),
        )

    def lazy_unblocked(
        self, name: str, shape: tuple[int, int], bits: int, real: ir.DataType, title: str
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        """The initializers, called `title`, of a linear layer's weight [out, in] for standard operators: scales in
        `real`, then codes with a sign. In 8 bits a scale for each output [out], and codes i8 [in, out]; in 4 bits a
        scale for each block of inputs [out, blocks], and codes i4 [out, in]."""
        out, inputs = shape
        if bits == 8:
            return _scales_and_codes(
                title,
                lambda: output_scales(self.read(name, shape)).astype(real.numpy()),
                lambda scales: byte_codes(self.read(name, shape), scales.astype(np.float32)),
                (real, (out,)),
                (ir.DataType.INT8, (inputs, out)),
            )
        return _scales_and_codes(
            title,
            lambda: find_scales(self.read(name, shape), bits).astype(real.numpy()),
            lambda scales: signed_nibbles(round_to_codes(self.read(name, shape), scales.astype(np.float32), bits)),
            (real, (out, blocks_of(inputs, bits))),
            (ir.DataType.INT4, shape),
        )

    def lazy_bytes(self, name: str, shape: tuple[int, int], title: str) -> list[tuple[ir.LazyTensor, ir.LazyTensor]]:
        """The initializers, called `title`, of a linear layer's weight [out, in] for multiplying bytes: scales f32
        [out] and codes i8 [inputs of the group, out] of each group of its inputs."""
        return [
            self._lazy_group(name, group, number * group_size(shape[1]), shape)
            for number, group in enumerate(group_names(title, shape[1]))
        ]

    def _lazy_group(
        self, name: str, title: str, begin: int, shape: tuple[int, int]
    ) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        """Those of the group whose inputs start at `begin`, called `title`."""
        out, width = shape[0], group_size(shape[1])
        return _scales_and_codes(
            title,
            lambda: output_scales(self.read_columns(name, begin, begin + width)),
            lambda scales: byte_codes(self.read_columns(name, begin, begin + width), scales),
            (ir.DataType.FLOAT, (out,)),
            (ir.DataType.INT8, (width, out)),
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


def _scales_and_codes(
    name: str,
    find: Callable[[], np.ndarray],
    code: Callable[[np.ndarray], np.ndarray],
    scales_are: tuple[ir.DataType, tuple[int, ...]],
    codes_are: tuple[ir.DataType, tuple[int, ...]],
) -> tuple[ir.LazyTensor, ir.LazyTensor]:
    """Initializers of these types and shapes, the codes called `name`: `code` makes them from what `find` finds.

    They are written in this order, so that one layer's scales at a time are kept for its codes.
    """
    kept: list[np.ndarray] = []

    def scales() -> ir.Tensor:
        kept[:] = [find()]
        return ir.Tensor(kept[0], name=f"{name}.scales")

    def codes() -> ir.Tensor:
        if not kept:
            scales()
        return ir.Tensor(code(kept.pop()), name=name)

    return (
        ir.LazyTensor(scales, scales_are[0], ir.Shape(scales_are[1]), name=f"{name}.scales"),
        ir.LazyTensor(codes, codes_are[0], ir.Shape(codes_are[1]), name=name),
    )


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except SafetensorError:
        raise BadShard(f"{path.name} is truncated or not a safetensors file.") from None
