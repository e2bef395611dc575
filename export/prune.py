"""Removes builds that nobody will go back to, and what killed commands left behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from export.failures import Locked
from export.publish import current, earlier, history
from export.shelf import BUILD_LOCK, ENGINES, PARTS, builds_in, locked
from export.streamed import sync_folder

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
    found, is_before = [], True
    for path, _ in builds_in(out):
        is_before = is_before and path.name != now.digest
        if path.name not in kept and (is_before or path.name in published):
            found.append(path)
    return found


def prune(out: Path, builds: Sequence[Path]) -> None:
    """Removes builds, each from sight at once and from the disk after that, engines of builds that are no more, and
    what was left half removed or half written; the parts of a build that is being written stay. The caller holds the
    lock on publishing."""
    for path in builds:
        path.rename(out / f"{_REMOVING}{path.name}")
    for engines in (out / ENGINES).glob("[!.]*/"):
        if not (out / engines.name).exists():
            engines.rename(out / f"{_REMOVING}{ENGINES}-{engines.name}")
    sync_folder(out)
    for path in out.glob(f"{_REMOVING}*"):
        shutil.rmtree(path)
    try:
        with locked(out, BUILD_LOCK):
            for path in out.glob(f"{PARTS}*"):
                shutil.rmtree(path)
    except Locked:
        return
