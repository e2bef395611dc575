"""Removes old builds, and what killed commands left behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from export.errors import Locked
from export.store.build_store import BUILD_LOCK, ENGINE_PARTS, ENGINES, ENGINES_LOCK, PARTS, builds_in, locked
from export.store.durable_io import sync_folder
from export.store.publish import current, earlier, history
from glmserve.build.lock import unused
from glmserve.build.manifest import MANIFEST_FILE

_REMOVING = ".removing-"


def to_prune(out: Path, keep: int) -> list[Path]:
    """The builds to remove: those published earlier, and those older than the current one that never were published.

    Kept are the current build, the first `keep` that `rollback` would reach, and any made since. Empty when nothing was
    published.
    """
    now = current(out)
    if now is None:
        return []
    kept = {now.digest, *[entry.digest for entry in earlier(out)][:keep]}
    published = {entry.digest for entry in history(out)}
    since = _made(out / now.digest)
    return [
        path for path, _ in builds_in(out) if path.name not in kept and (path.name in published or _made(path) < since)
    ]


def _made(build: Path) -> tuple[int, Path]:
    """A build's age, to sort by: when it was made, then its path. One that is gone counts as the oldest."""
    try:
        return (build / MANIFEST_FILE).stat().st_mtime_ns, build
    except FileNotFoundError:
        return 0, build


def served(builds: Sequence[Path]) -> list[Path]:
    """Those of the builds that a service uses, or may use where that cannot be found out."""
    found = []
    for path in builds:
        with unused(path) as is_unused:
            if not is_unused:
                found.append(path)
    return found


def prune(out: Path, builds: Sequence[Path]) -> list[Path]:
    """Removes builds, TensorRT engines of builds that are gone, and what killed commands left behind.

    A build is first renamed out of sight, in one step, and then deleted. What a running command is writing stays.
    Returns the builds that stay because a service uses them, or may use them. The caller holds the lock on publishing.
    """
    stay = []
    for path in builds:
        with unused(path) as is_unused:
            if is_unused:
                _hide(path, out)
            else:
                stay.append(path)
    for engines in (out / ENGINES).glob("[!.]*/"):
        if not (out / engines.name).exists():
            _hide(engines, out)
    sync_folder(out)
    _remove(out.glob(f"{_REMOVING}*"))
    _remove_unless_locked(out, BUILD_LOCK, PARTS)
    _remove_unless_locked(out / ENGINES, ENGINES_LOCK, ENGINE_PARTS)
    return stay


def _hide(path: Path, out: Path) -> None:
    """Takes a folder out of sight in one step, under a name that is used only once."""
    path.rename(out / f"{_REMOVING}{path.name}-{uuid4().hex}")


def _remove(folders: Iterable[Path]) -> None:
    for path in list(folders):
        shutil.rmtree(path)


def _remove_unless_locked(out: Path, lock: str, beginning: str) -> None:
    """Removes the folders in `out` whose names begin so, unless a command that writes such folders is running."""
    left = list(out.glob(f"{beginning}*"))
    if not left:
        return
    try:
        with locked(out, lock):
            _remove(left)
    except Locked:
        return
