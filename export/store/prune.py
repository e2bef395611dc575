"""Removes builds that nobody will go back to, and what killed commands left behind."""

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
    """The builds that nobody needs: published before, or made before the current one and never published.

    The current build is none of them, nor are the first `keep` that `rollback` would go to, nor any made since. Where
    nothing was published, there are none.
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
    """When a build was made, and its path where two were made at once; what is gone was made before everything."""
    try:
        return (build / MANIFEST_FILE).stat().st_mtime_ns, build
    except FileNotFoundError:
        return 0, build


def served(builds: Sequence[Path]) -> list[Path]:
    """Those of the builds that somebody serves, and those of which that cannot be found out."""
    found = []
    for path in builds:
        with unused(path) as is_unused:
            if not is_unused:
                found.append(path)
    return found


def prune(out: Path, builds: Sequence[Path]) -> list[Path]:
    """Removes builds, each from sight at once and from the disk after that, engines of builds that are no more, and
    what was left half removed or half written; the parts of what is being written stay. Returns the builds that stay
    because somebody serves them, or because that cannot be found out. The caller holds the lock on publishing.
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
    """Takes a folder out of sight in one step, under a name that none has that was left half removed."""
    path.rename(out / f"{_REMOVING}{path.name}-{uuid4().hex}")


def _remove(folders: Iterable[Path]) -> None:
    for path in list(folders):
        shutil.rmtree(path)


def _remove_unless_locked(out: Path, lock: str, beginning: str) -> None:
    """Removes the folders in `out` whose names begin so, unless whoever writes such folders is at work."""
    left = list(out.glob(f"{beginning}*"))
    if not left:
        return
    try:
        with locked(out, lock):
            _remove(left)
    except Locked:
        return
