"""Writes a file of weights tensor by tensor, noting how far it has come, so that a killed export goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from export.build.progress import Advance
from export.store.durable_io import sync

SYNC_BYTES = 256 * 1024**2
"""At least so much is written between two notes."""
_ALIGNMENT = 64
_CHUNK_BYTES = 16 * 1024**2
_READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class Progress:
    """A file's first `tensors` tensors lie safely in its first `size` bytes; a finished file has its SHA-256."""

    tensors: int
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Journal:
    """What is done of a folder's files, one JSON object a line: the last line about a file holds."""

    path: Path

    def progress(self, name: str) -> Progress:
        """How far a file has come; a line that a kill cut short counts for nothing."""
        found = Progress(0, 0)
        lines = self.path.read_text("utf-8", "replace").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                values = json.loads(line)
                if values.pop("file") == name:
                    found = Progress(**values)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def note(self, name: str, progress: Progress) -> None:
        """Adds a line, and returns once it is on the disk."""
        with self.path.open("ab") as file:
            file.write(b"\n" + json.dumps({"file": name, **asdict(progress)}).encode())
            sync(file)


def offsets_of(tensors: Sequence[ir.TensorProtocol]) -> list[int]:
    """Where each tensor begins in a file of all of them; the last number is the file's size."""
    offsets, end = [], 0
    for tensor in tensors:
        begin = -(-end // _ALIGNMENT) * _ALIGNMENT
        offsets.append(begin)
        end = begin + tensor.nbytes
    return [*offsets, end]


def write_tensors(
    tensors: Sequence[ir.TensorProtocol], path: Path, journal: Journal, advance: Advance, sync_bytes: int = SYNC_BYTES
) -> str:
    """Writes the tensors' bytes, each held in memory only while it is written; returns the file's SHA-256.

    Goes on where the journal says that an earlier call of the same tensors came to.
    """
    done = journal.progress(path.name)
    if not path.exists() or path.stat().st_size < done.size:
        done = Progress(0, 0)
    if done.sha256 is not None:
        advance(done.size)
        return done.sha256
    offsets = offsets_of(tensors)
    with path.open("r+b" if done.size else "w+b") as file:
        file.truncate(done.size)
        digest = digest_of(file, advance)
        noted = done.size
        for index in range(done.tensors, len(tensors)):
            _write_bytes(file, b"\0" * (offsets[index] - file.tell()), digest, advance)
            _write_bytes(file, _bytes_of(tensors[index]), digest, advance)
            if file.tell() - noted >= sync_bytes:
                sync(file)
                noted = file.tell()
                journal.note(path.name, Progress(index + 1, noted))
        sync(file)
        journal.note(path.name, Progress(len(tensors), offsets[-1], digest.hexdigest()))
    return digest.hexdigest()


def digest_of(file: BufferedIOBase, advance: Advance) -> hashlib._Hash:
    """The running digest of what a file holds already; leaves the file at its end."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    while size := file.readinto(buffer):
        digest.update(buffer[:size])
        advance(size)
    return digest


def _bytes_of(tensor: ir.TensorProtocol) -> memoryview:
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def _write_bytes(file: BinaryIO, content: bytes | memoryview, digest: hashlib._Hash, advance: Advance) -> None:
    for begin in range(0, len(content), _CHUNK_BYTES):
        chunk = content[begin : begin + _CHUNK_BYTES]
        file.write(chunk)
        digest.update(chunk)
        advance(len(chunk))
