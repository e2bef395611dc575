"""Remembers the SHA-256 of large files, so that an export finds its existing build without reading them again.

A digest counts for a file of the same path, inode, size and modification time, some blocks of which are still the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from export.store.build_store import write_whole
from glmserve.system.file_lock import file_lock

FILE = ".digests.json"
LOCK = ".digests.lock"
_LOCK_WAIT_S = 5.0
_SETTLED_NS = 2_000_000_000
"""A file that was written so shortly before it was read may change once more within its clock's grain."""
_BLOCKS, _BLOCK_BYTES = 16, 4096
_LEAST_BYTES = 1 << 20
"""Smaller files are quicker read than looked up."""

Read = Callable[[BinaryIO], str]
"""Reads a file from where it stands to its end, and returns the SHA-256 in hex."""


@dataclass(frozen=True)
class Known:
    """What a file was like when its digest was computed; `sample` is a digest of some of its blocks."""

    device: int
    inode: int
    size: int
    modified_ns: int
    sample: str
    sha256: str


@dataclass
class FileDigests:
    """The digests that a folder of builds remembers; any thread may ask. `save` keeps what was learnt."""

    folder: Path
    _known: dict[str, Known] = field(default_factory=dict)
    _learnt: dict[str, Known] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @staticmethod
    def open(folder: Path) -> FileDigests:
        """What is remembered there; a file that cannot be read remembers nothing."""
        return FileDigests(folder, _stored(folder / FILE))

    def of(self, path: Path, read: Read) -> str:
        """A file's SHA-256: the one that is remembered, or what `read` finds."""
        key = str(path.resolve())
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            sample = _sample(file, before.st_size)
            known = self._known.get(key)
            if known is not None and _is_same(known, before, sample):
                return known.sha256
            file.seek(0)
            digest, began_ns = read(file), time.time_ns()
            after = os.fstat(file.fileno())
        found = Known(before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, sample, digest)
        has_settled = began_ns - before.st_mtime_ns > _SETTLED_NS
        if has_settled and before.st_size >= _LEAST_BYTES and _is_same(found, after, sample):
            with self._lock:
                self._learnt[key] = found
        return digest

    def save(self) -> None:
        """Adds what was learnt to what others have stored meanwhile. Where that cannot be written, files are read
        again the next time."""
        if not self._learnt:
            return
        with contextlib.suppress(OSError), file_lock(self.folder / LOCK, _LOCK_WAIT_S):  # TimeoutError is one
            stored = _stored(self.folder / FILE) | self._learnt
            kept = {name: asdict(known) for name, known in stored.items() if Path(name).exists()}
            write_whole(self.folder / FILE, json.dumps(kept, indent=1) + "\n")


def _stored(path: Path) -> dict[str, Known]:
    try:
        return {str(name): Known(**values) for name, values in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_same(known: Known, status: os.stat_result, sample: str) -> bool:
    return (known.device, known.inode, known.size, known.modified_ns, known.sample) == (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        sample,
    )


def _sample(file: BinaryIO, size: int) -> str:
    """The digest of blocks spread evenly over a file, its first and last among them: an edit that keeps the
    modification time rarely misses them all."""
    digest = hashlib.sha256()
    for number in range(_BLOCKS):
        file.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
        digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()
