"""Starts a Triton on free ports and looks at processes from outside."""

from __future__ import annotations

import os
from pathlib import Path

from bench.ports import free_port
from launcher.triton_server import TritonServer

READY_S = 60


def server_of(repository: Path) -> TritonServer:
    return TritonServer(repository, free_port(), free_port(), free_port())


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not collected yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
