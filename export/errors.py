"""How export commands fail: an error class and an exit code for each reason."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from glmserve.errors import (
    BadArtifact,
    BadSettings,
    Disproved,
    DoesNotFit,
    GlmServeError,
    NotCertified,
    UnknownArchitecture,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BadShard(BadArtifact):
    """A weights file is missing, truncated, or not the one that the checkpoint's index or config describes."""


class NoTokenizer(BadArtifact):
    """The checkpoint's tokenizer or chat template is missing, or does not fit its model."""


class DiskFull(GlmServeError):
    """The disk has too little room."""


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
    """The checkpoint could not be downloaded from the hub."""


class NotAnswered(GlmServeError):
    """The build did not answer its canary question as it should, so it is not published."""


class NothingBefore(GlmServeError):
    """There is no earlier build to roll back to."""


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
    BAD_SETTINGS = 17


MEANING = {
    0: "success",
    1: "a bug in this program",
    2: "an invalid command line",
    Exit.BAD_ARTIFACT: "the checkpoint or build is incomplete, altered or of another version",
    Exit.PARITY_FAILED: "the build does not compute what the checkpoint computes",
    Exit.MISSING_PACKAGE: "a package that only this command needs is not installed",
    Exit.BAD_SHARD: "a weights file is missing, truncated or the wrong one",
    Exit.UNKNOWN_ARCHITECTURE: "this project does not serve that model",
    Exit.NO_TOKENIZER: "tokenizer.json or chat_template.jinja is missing, broken or of another model",
    Exit.DISK_FULL: "the disk is full",
    Exit.LOCKED: "another command is at work on the same builds",
    Exit.DOWNLOAD_FAILED: "the download from the hub failed",
    Exit.NOT_CERTIFIED: "not published: no valid certificate",
    Exit.NOT_ANSWERED: "not published: wrong answer to the canary question",
    Exit.NOTHING_BEFORE: "there is no earlier build to roll back to",
    Exit.MISSING_TENSORRT: "TensorRT or a GPU is missing",
    Exit.NO_ACCESS: "a file or folder cannot be read or written",
    Exit.BAD_SETTINGS: "a setting in the environment is unknown or invalid",
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
    BadSettings: Exit.BAD_SETTINGS,
}


def exit_code(error: GlmServeError) -> int:
    """The exit code of an error: that of the nearest class which has one."""
    return next((_EXITS[kind] for kind in type(error).__mro__ if kind in _EXITS), 1)


def is_full(error: OSError) -> bool:
    """Whether a system error means that there is no room: a full disk, a quota, or the limit on a file's size."""
    if isinstance(error, shutil.Error):  # from copying a tree: it has no error number, only a text for each file
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
    """Turns a system error about a file into NoAccess or DiskFull. One that names no file is our own bug and passes."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFull("The disk is full: make room, and run the same command again.") from None
        if error.filename is None or error.strerror is None:
            raise
        raise NoAccess(f"{error.filename} cannot be read or written: {error.strerror}.") from error
