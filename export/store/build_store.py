"""The folder that holds all builds: what is in it, and the locks of the commands that change it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from export.errors import Locked
from export.store.durable_io import sync, sync_folder
from glmserve.build.manifest import MANIFEST_FILE, Manifest, find_build
from glmserve.errors import BadArtifact
from glmserve.system.file_lock import file_lock

PARTS = ".parts-"
"""A folder of this name and a recipe holds what is done of a build that is not finished."""
BUILD_LOCK = ".build.lock"
"""Held while a build is written."""
ENGINES = "engines"
"""The folder of TensorRT engines, by the digest of the build that they are for."""
ENGINE_PARTS = ".partial-"
"""In that folder, one of this beginning is an engine that is being laid out."""
ENGINES_LOCK = ".engines.lock"
"""Held in that folder while an engine is laid out."""
PUBLISHED = ".published"
"""The folder of every choice of a current build."""
PUBLISH_LOCK = ".publish.lock"
"""Held while the current build is chosen or builds are removed."""


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


def build_in(out: Path, name: str) -> Path:
    """The build in `out` of that digest, or of that path; raises BadArtifact when it is not in there."""
    path = find_build(out, name).resolve()
    if path.parent != out.resolve():
        raise BadArtifact(f"There is no build {name} in {out}; `list` names those there are.")
    return out / path.name


def write_whole(path: Path, text: str, made_ns: int | None = None) -> None:
    """Writes a file so that a reader finds the old one or the new one, whole, and returns once it is on the disk.

    It counts as written at `made_ns`, if that is given.
    """
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        file.write(text.encode())
        file.flush()
        if made_ns is not None:
            os.utime(file.fileno(), ns=(made_ns, made_ns))
        sync(file)
    partial.rename(path)
    sync_folder(path.parent)


@contextmanager
def locked(out: Path, name: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Holds a lock, which the system frees when the process ends, however it ends.

    Raises Locked when another command still holds it after `timeout_s`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(out / name, timeout_s))
        except TimeoutError:
            raise Locked(f"Another command is at work in {out} (it holds {name}): wait until it ends.") from None
        yield
