"""The folder that builds stand in: which are there, and how commands that change it keep out of one another's way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from export.failures import Locked
from glmserve.errors import BadArtifact
from glmserve.manifest import MANIFEST_FILE, Manifest

PARTS = ".parts-"
"""A folder of this name and a recipe holds what is done of a build that is not finished."""
BUILD_LOCK = ".build.lock"
"""Held while a build is written."""


def builds_in(out: Path) -> list[tuple[Path, Manifest]]:
    """Every build that this version can read, in the order they were made."""
    found = []
    for path in out.glob(f"*/{MANIFEST_FILE}"):
        if path.parent.is_symlink() or path.parent.name.startswith("."):
            continue
        try:
            found.append((path.stat().st_mtime_ns, path.parent, Manifest.read(path.parent)))
        except BadArtifact:
            continue
    return [(path, manifest) for _, path, manifest in sorted(found, key=lambda build: build[:2])]


@contextmanager
def locked(out: Path, name: str) -> Iterator[None]:
    """Holds a lock that ends with the process, however it ends; raises Locked at once when another holds it."""
    try:
        with FileLock(out / name, timeout=0):
            yield
    except Timeout:
        raise Locked(f"Another command is at work in {out} (it holds {name}): wait until it ends.") from None
