"""Locks on builds: whoever serves one holds a shared lock on it, so that nobody removes it.

A shared lock, which `glmserve.system.file_lock` has not: many processes may serve one build.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from glmserve.build.manifest import decoder_in
from glmserve.errors import BadArtifact

_log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What the system says where a file system knows no locks."""
_WAIT_S, _RETRY_S = 5.0, 0.05


def hold(build: Path) -> BinaryIO:
    """Keeps a build from being removed until what is returned is closed; a folder that is mounted read-only will do.

    Raises BadArtifact when it has no decoder or is being removed. Where there are no locks the log says so. What is
    read of the build after this call is there.
    """
    graph = decoder_in(build)
    try:
        file = graph.open("rb")
    except OSError:
        raise BadArtifact(f"Build {build.name} has no readable {graph.name}.") from None
    try:
        _share(file, build)
        if not graph.exists():  # it was taken away while we waited
            raise BadArtifact(f"Build {build.name} was removed.")
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def unused(build: Path) -> Iterator[bool]:
    """Whether nobody holds a build, and then nobody can while the body runs; False where that cannot be found out."""
    graph = decoder_in(build)
    if not graph.exists():
        yield True
        return
    file = _locked(graph)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()


def _locked(path: Path) -> BinaryIO | None:
    """The file under a lock of one's own, opened to write because a network file system asks for that; else None."""
    try:
        file = path.open("r+b")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _share(file: BinaryIO, build: Path) -> None:
    """A lock that many can have; waits for those who only look whether the build is served."""
    give_up_s = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                raise BadArtifact(f"Build {build.name} is being removed.") from None
            time.sleep(_RETRY_S)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("The file system of %s knows no locks: nobody can see that this build is served.", build)
            return
