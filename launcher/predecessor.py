"""Who holds a port: a part of a service of ours that is ending, so that the port is soon free, or somebody else."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from enum import Enum
from pathlib import Path

_ENDING = "glm-ending"
_PR_SET_NAME = 15
_LISTENING = "0A"
_LAUNCHER, _OURS = b"launcher", (b"--id=glm-", b"gateway.server.gunicorn_config")


def say_that_we_end() -> None:
    """Renames this process, so that a launcher that starts meanwhile knows what it waits for."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, _ENDING.encode(), 0, 0, 0)


class Holder(Enum):
    """Whose a port is."""

    ENDING = "a tritonserver or a gateway of ours whose launcher is ending or has died"
    UNSEEN = "nobody who can be seen listening: a process on its last moment, or another user's"
    OTHER = "another program"


def holder_of(port: int) -> Holder:
    """Who holds a port that cannot be opened."""
    holders = _holders(port)
    if not holders:
        return Holder.UNSEEN
    return Holder.ENDING if any(_is_ours(one) and _is_left(_launcher_of(one)) for one in holders) else Holder.OTHER


def kill_stopped(port: int) -> None:
    """Kills what holds a port, was left by a launcher that has died, and stands still: so it cannot end by itself."""
    for process in _holders(port):
        is_stopped = _field(process / "status", b"State:") in "Tt"
        if is_stopped and _is_ours(process) and not _is_launcher(_launcher_of(process)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(os.getpgid(int(process.name)), signal.SIGKILL)  # each of our children leads its own group


def _holders(port: int) -> list[Path]:
    sockets = _listening_on(port)
    return [process for process in Path("/proc").glob("[0-9]*") if sockets & _sockets_of(process)]


def _is_ours(process: Path) -> bool:
    command = _read(process / "cmdline")
    return any(sign in command for sign in _OURS)


def _launcher_of(process: Path) -> Path:
    """Whoever started it, or, for a gateway's worker, its master."""
    parent = process.parent / _field(process / "status", b"PPid:")
    return parent.parent / _field(parent / "status", b"PPid:") if _is_ours(parent) else parent


def _is_left(launcher: Path) -> bool:
    """Whether it has died, or is ending."""
    return not _is_launcher(launcher) or _read(launcher / "comm").decode().strip() == _ENDING


def _is_launcher(process: Path) -> bool:
    return _LAUNCHER in _read(process / "cmdline")


def _listening_on(port: int) -> set[str]:
    lines = [line.split() for line in _read(Path("/proc/net/tcp")).decode().splitlines()[1:]]
    return {
        f"socket:[{line[9]}]" for line in lines if line[3] == _LISTENING and int(line[1].rpartition(":")[2], 16) == port
    }


def _sockets_of(process: Path) -> set[str]:
    found = set()
    with suppress(OSError):  # it has ended, or is another user's
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


def _field(path: Path, name: bytes) -> str:
    return next((line.split()[1].decode() for line in _read(path).splitlines() if line.startswith(name)), "0")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
