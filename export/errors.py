"""Why an export command can end without success: an error for each reason, and each reason's exit code."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from glmserve.errors import BadArtifact, Disproved, DoesNotFit, GlmServeError, NotCertified, UnknownArchitecture

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BadShard(BadArtifact):
    """A file of weights is missing, truncated, or not the one that the checkpoint's index or config means."""


class NoTokenizer(BadArtifact):
    """A checkpoint came without files that turn text into tokens, or they do not do so for its model."""


class DiskFull(GlmServeError):
    """There is no room for what is to be written."""


class NoAccess(GlmServeError):
    """The system does not let a file or folder be read or written; the message names it."""


class Locked(GlmServeError):
    """Another command works on the same builds."""


class MissingTensorRt(GlmServeError):
    """TensorRT, or the GPU that it makes engines for, is not on this machine; the message names what to install."""

    code = "missing_tensorrt"


class MissingPackage(GlmServeError):
    """A package that only this command needs is not installed; the message names it."""


class DownloadFailed(GlmServeError):
    """The hub did not hand the checkpoint out."""


class NotAnswered(GlmServeError):
    """The candidate did not answer its golden picture as it should, so it is not published."""


class NothingBefore(GlmServeError):
    """There is no earlier build to go back to."""


class Exit(IntEnum):
    """Why a command ended; 0 is success, 1 our own bug, 2 a wrong command line."""

    BAD_ARTIFACT = 3
    PARITY_FAILED = 4
    MISSING_PACKAGE = 5
    BAD_SHARD = 6
    UNKNOWN_ARCHITECTURE = 7
    NO_TOKENIZER = 8
    DISK_FULL = 9
    LOCKED = 10
    DOWNLOAD_FAILED = 11
    NOT_CERTIFIED = 12
    NOT_ANSWERED = 13
    NOTHING_BEFORE = 14
    MISSING_TENSORRT = 15
    NO_ACCESS = 16


MEANING = {
    0: "success",
    1: "a fault of this program",
    2: "a wrong command line",
    Exit.BAD_ARTIFACT: "a checkpoint or build that is incomplete, altered or of another version",
    Exit.PARITY_FAILED: "the build does not compute what the checkpoint does",
    Exit.MISSING_PACKAGE: "a package that only this command needs is not installed",
    Exit.BAD_SHARD: "a file of weights is missing, truncated, or not the right one",
    Exit.UNKNOWN_ARCHITECTURE: "a model that this project does not serve",
    Exit.NO_TOKENIZER: "tokenizer.json or chat_template.jinja is missing, broken, or of another model",
    Exit.DISK_FULL: "no room on the disk",
    Exit.LOCKED: "another command works on the same builds",
    Exit.DOWNLOAD_FAILED: "the hub did not hand the checkpoint out",
    Exit.NOT_CERTIFIED: "no valid certificate, so not published",
    Exit.NOT_ANSWERED: "the golden picture was not answered rightly, so not published",
    Exit.NOTHING_BEFORE: "no earlier build to roll back to",
    Exit.MISSING_TENSORRT: "TensorRT or a GPU is missing",
    Exit.NO_ACCESS: "a file or folder cannot be read or written",
}
"""Each exit code in words, for `--help` and the documents."""

_EXITS: dict[type[GlmServeError], Exit] = {
    BadShard: Exit.BAD_SHARD,
    UnknownArchitecture: Exit.UNKNOWN_ARCHITECTURE,
    NoTokenizer: Exit.NO_TOKENIZER,
    Disproved: Exit.PARITY_FAILED,
    NotCertified: Exit.NOT_CERTIFIED,
    DiskFull: Exit.DISK_FULL,
    NoAccess: Exit.NO_ACCESS,
    Locked: Exit.LOCKED,
    MissingPackage: Exit.MISSING_PACKAGE,
    MissingTensorRt: Exit.MISSING_TENSORRT,
    DownloadFailed: Exit.DOWNLOAD_FAILED,
    NotAnswered: Exit.NOT_ANSWERED,
    NothingBefore: Exit.NOTHING_BEFORE,
    DoesNotFit: Exit.BAD_ARTIFACT,
    BadArtifact: Exit.BAD_ARTIFACT,
}


def exit_code(error: GlmServeError) -> int:
    """The exit code of an error: that of the nearest class which has one."""
    return next((_EXITS[kind] for kind in type(error).__mro__ if kind in _EXITS), 1)


def is_full(error: OSError) -> bool:
    """Whether an error of the system means that there is no room, by quota or by the largest size of a file too."""
    if isinstance(error, shutil.Error):  # of a copied tree: it keeps no numbers, only what was said of each file
        said = [str(why) for _, _, why in error.args[0]] if isinstance(error.args[0], list) else []
        return any(why.startswith(f"[Errno {number}]") for why in said for number in _NO_ROOM)
    return error.errno in _NO_ROOM


@contextmanager
def room_on(folder: Path) -> Iterator[None]:
    """Turns the system's "no space left" into DiskFull."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull(
            f"The disk of {folder} is full. Finished parts are kept: make room and run the same command again to go "
            "on, or `prune` to remove them."
        ) from None


@contextmanager
def named_files() -> Iterator[None]:
    """Turns what the system says of a file into NoAccess, or DiskFull; where it names none, it is a fault of ours."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFull("The disk is full: make room, and run the same command again.") from None
        if error.filename is None or error.strerror is None:
            raise
        raise NoAccess(f"{error.filename} cannot be read or written: {error.strerror}.") from error
