"""A folder in /tmp for as long as its process lives; what killed processes left is removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_OWNER = ".owner"


class RuntimeFolder:
    """One folder, from its making to `remove`. Its owner holds a lock in it, which ends with the process."""

    def __init__(self, prefix: str, remove_beside: Callable[[Path], object] = lambda _folder: None) -> None:
        """Removes what dead owners of this prefix left first. `remove_beside` is told each folder that goes, this one
        too in the end, so that what belongs to it elsewhere goes as well."""
        for left in _abandoned(prefix):
            remove_beside(left)
            shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._remove_beside = remove_beside
        self._lock = os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        self._remove_beside(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _abandoned(prefix: str) -> Iterator[Path]:
    """Our own folders of this prefix whose owner has died; one without a lock file is being made."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        except OSError:
            continue  # its owner lives
        finally:
            os.close(lock)
