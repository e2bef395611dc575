"""How much memory this machine has, or this container's share of it: not how much is free just now."""

from __future__ import annotations

import os
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def total_memory_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """The machine's memory, or the smallest limit of the control groups (v1 or v2) that this process is in."""
    return min([_machine(proc), *_limits(proc, cgroups)])


def _machine(proc: Path) -> int:
    for line in _text(proc / "meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemTotal":
            return int(amount.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(proc: Path, cgroups: Path) -> list[int]:
    """Of our groups and all above them. A container may be told the host's path of its group, of which it sees the
    root only."""
    found = []
    lines = _text(proc / "self/cgroup").splitlines() or ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            text = _text(root / folder / name).strip()
            if text.isdecimal():
                found.append(int(text))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:
        return ""
