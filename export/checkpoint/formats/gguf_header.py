"""What a GGUF file says of itself: its metadata, and where each tensor lies."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from export.checkpoint.formats.gguf_blocks import KINDS
from export.errors import BadShard

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_STRING, _MOST_SIZES, _MOST_ENTRIES = 1 << 24, 4, 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KEPT_ARRAY = 64
"""Longer arrays, as those of the vocabulary, are passed over."""


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor's bytes lie; `shape` has the inputs last, `kind` is GGUF's number of its type."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    kind: int

    @property
    def row_bytes(self) -> int:
        block = KINDS[self.kind]
        return self.shape[-1] // block.values * block.size

    @property
    def length(self) -> int:
        return prod(self.shape[:-1]) * self.row_bytes

    def mapped(self) -> np.ndarray:
        """The bytes u8 [rows, bytes of a row], mapped and not read."""
        raw = np.memmap(self.path, np.uint8, "r", self.offset, (self.length,))
        return raw.reshape(-1, self.row_bytes)


@dataclass(frozen=True)
class GgufFile:
    """A file's metadata without long arrays, and its tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @staticmethod
    def read(path: Path) -> GgufFile:
        """Reads the header only. Raises BadShard naming the file, and where it is known the tensor, when it is
        truncated, contradicts itself or has a type that is not read."""
        try:
            with path.open("rb") as file:
                return _Reader(file, path).read()
        except (struct.error, OverflowError, UnicodeDecodeError, ValueError, MemoryError):
            raise BadShard(f"{path.name} is truncated or not a GGUF file.") from None


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder, sorted by name."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())


class _Reader:
    """Walks through one header."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._size = path.stat().st_size

    def read(self) -> GgufFile:
        if self._file.read(4) != _MAGIC:
            raise ValueError
        version = self._number("I")
        if version not in _VERSIONS:
            raise BadShard(f"{self._path.name} is GGUF of version {version}; versions 2 and 3 are read.")
        tensors, entries = self._count(), self._count()
        metadata = {}
        for _ in range(entries):
            key = self._string()
            metadata[key] = self._value(self._number("I"))
        found = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError
        begin = -(-self._file.tell() // alignment) * alignment
        placed = {name: self._placed(name, sizes, kind, begin + offset) for name, sizes, kind, offset in found}
        return GgufFile(self._path, metadata, placed)

    def _placed(self, name: str, sizes: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        if kind not in KINDS:
            raise BadShard(
                f"Tensor {name} in {self._path.name} is of GGUF's type {kind}; only "
                f"{', '.join(block.name for block in KINDS.values())} are read. Take a file of one of these, such as "
                "Q4_K_M or Q8_0."
            )
        tensor = GgufTensor(self._path, offset, sizes[::-1], kind)
        if sizes[0] % KINDS[kind].values:
            raise BadShard(f"Tensor {name} in {self._path.name} has {sizes[0]} inputs, which make no whole blocks.")
        if offset + tensor.length > self._size:
            raise BadShard(f"{self._path.name} is truncated: tensor {name} ends at {offset + tensor.length}.")
        return tensor

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, count = self._string(), self._number("I")
        if not 1 <= count <= _MOST_SIZES:
            raise ValueError
        sizes = tuple(int(self._number("Q")) for _ in range(count))
        if min(sizes) < 1 or prod(sizes) > 8 * self._size:  # no type has less than a bit for a number
            raise ValueError
        return name, sizes, int(self._number("I")), int(self._number("Q"))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind]) if kind in _SCALARS else self._unknown()
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            if count * width > self._size:
                raise ValueError
            if count > _KEPT_ARRAY:
                self._file.seek(count * width, 1)
                return None
            return [self._number(_SCALARS[kind]) for _ in range(count)]
        if kind != _STRING or count * 8 > self._size:
            raise ValueError
        for _ in range(count):
            self._pass_string()
        return None

    def _unknown(self) -> Any:
        raise ValueError

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        return struct.unpack(f"<{form}", self._file.read(size))[0]

    def _count(self) -> int:
        count = int(self._number("Q"))
        if count > _MOST_ENTRIES:
            raise ValueError
        return count

    def _string(self) -> str:
        length = self._number("Q")
        if length > _MOST_STRING:
            raise ValueError
        content = self._file.read(length)
        if len(content) < length:
            raise ValueError
        return content.decode("utf-8", "replace")

    def _pass_string(self) -> None:
        length = self._number("Q")
        if length > _MOST_STRING:
            raise ValueError
        self._file.seek(length, 1)
