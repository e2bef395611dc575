"""Whether somebody has stopped a process, as the kernel tells."""

from __future__ import annotations

from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Whether a process stands still since a SIGSTOP, or for a debugger; not so where there is none."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return said.rpartition(")")[2].split()[:1] in (["T"], ["t"])
