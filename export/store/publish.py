"""Which build is served: `current`, a link that is switched in one step, and every choice before it to go back to.

```
builds/current             -> .published/000003/build
builds/.published/000003/
  build                    -> ../../<digest>
  entry.json               this module's Entry
```

An entry is complete before `current` points into it, so whoever follows the link finds the old build or the new one,
with the history that belongs to it, whenever a command is killed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from export.errors import NothingBefore
from export.store.build_store import PUBLISHED, write_whole
from export.store.durable_io import sync_folder
from glmserve.build.manifest import CURRENT, MANIFEST_FILE
from glmserve.errors import BadArtifact

_ENTRY = "entry.json"
_BUILD = "build"
_NEW = ".new-"
_LINK = ".link"
"""Unfinished entries and links that a kill may leave behind begin so."""


class Action(StrEnum):
    """How a build came to be current."""

    PUBLISH = "publish"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Entry:
    """One choice. `after` is the entry that was current before it, `back` the one that `rollback` goes to from here."""

    number: int
    digest: str
    action: Action
    made: str
    after: int | None
    back: int | None


def current(out: Path) -> Entry | None:
    """The current choice, or None when nothing was published. Raises BadArtifact when `current` is not a link that
    `publish` made."""
    link = out / CURRENT
    if not link.is_symlink() and not link.exists():
        return None
    try:
        number = int(link.readlink().parts[-2])
    except (OSError, ValueError, IndexError):
        raise BadArtifact(f"{link} was not made by `publish`: remove it, then publish a build.") from None
    return _read(out, number)


def history(out: Path) -> list[Entry]:
    """Every choice there ever was, the latest first."""
    found, entry = [], current(out)
    while entry is not None:
        found.append(entry)
        entry = None if entry.after is None else _read(out, entry.after)
    return found


def earlier(out: Path) -> list[Entry]:
    """The choices that `rollback` would go to one after another, those whose build is gone left out."""
    found, entry = [], current(out)
    while entry is not None and entry.back is not None:
        entry = _read(out, entry.back)
        if (out / entry.digest / MANIFEST_FILE).is_file():
            found.append(entry)
    return found


def publish(out: Path, digest: str) -> Entry:
    """Makes `out/<digest>` the current build; one that is current already stays so. The caller holds the lock."""
    now = current(out)
    if now is not None and now.digest == digest:
        return now
    before = now.number if now else None
    return _switch(out, digest, Action.PUBLISH, before, before)


def previous(out: Path) -> Entry:
    """The choice that `rollback` goes back to; raises NothingBefore when there is none."""
    choices = earlier(out)
    if not choices:
        raise NothingBefore(f"There is no build in {out} that was published before the current one.")
    return choices[0]


def rollback(out: Path) -> Entry:
    """Makes the build before the current one current again; raises NothingBefore. The caller holds the lock."""
    before, now = previous(out), current(out)
    return _switch(out, before.digest, Action.ROLLBACK, now.number if now else None, before.back)


def _switch(out: Path, digest: str, action: Action, after: int | None, back: int | None) -> Entry:
    choices = out / PUBLISHED
    choices.mkdir(exist_ok=True)
    for stale in choices.glob(f"{_NEW}*"):
        shutil.rmtree(stale)
    number = 1 + max((int(path.name) for path in choices.iterdir() if path.name.isdecimal()), default=0)
    entry = Entry(number, digest, action, datetime.now(UTC).isoformat(timespec="seconds"), after, back)
    new = choices / f"{_NEW}{uuid4().hex}"
    new.mkdir()
    (new / _BUILD).symlink_to(Path("..", "..", digest))
    write_whole(new / _ENTRY, json.dumps(asdict(entry)) + "\n")
    new.rename(choices / f"{number:06d}")
    sync_folder(choices)
    link = choices / _LINK
    link.unlink(missing_ok=True)
    link.symlink_to(Path(PUBLISHED, f"{number:06d}", _BUILD))
    link.replace(out / CURRENT)
    sync_folder(out)
    return entry


def _read(out: Path, number: int) -> Entry:
    """An entry; raises BadArtifact when it is lost."""
    path = out / PUBLISHED / f"{number:06d}" / _ENTRY
    try:
        values = json.loads(path.read_text("utf-8"))
        return Entry(**values | {"action": Action(values["action"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise BadArtifact(
            f"The history of {out} is broken: {path} is missing or cannot be read. Remove {out / CURRENT} and "
            f"{out / PUBLISHED}, no build is in there, and publish a build."
        ) from None
