"""What processes take of this machine, as the kernel counts it: processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launcher.supervision.vital_signs import children_of

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_KIB = 1024


def descendants(pid: int) -> set[int]:
    """Every process that this one has started, and that those have."""
    found: set[int] = set()
    for child in children_of(pid):
        found |= {child} | descendants(child)
    return found


def words_of(pid: int) -> list[str]:
    """What a process was started with: its program first. None for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")[:-1]
    return []


def cpu_s(pid: int) -> float:
    """Seconds of processor time since it started: its own, its children's, and that of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S + sum(map(cpu_s, children_of(pid)))


def peak_bytes(pid: int) -> int:
    """Most memory that was resident at any time."""
    return _of(pid, "status", "VmHWM:")


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes: what several share counts for each. One that has ended has none."""
    return sum(_of(pid, "status", "VmRSS:") for pid in pids)


def pss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes: what several share counts once. One that has ended has none."""
    return sum(_of(pid, "smaps_rollup", "Pss:") for pid in pids)


def own_bytes(pids: Iterable[int]) -> int:
    """Memory that holds what these processes have written, and not what lies in files, which other programs may share:
    what a leak grows. One that has ended has none."""
    return sum(_of(pid, "status", "RssAnon:") + _of(pid, "status", "RssShmem:") for pid in pids)


def threads_of(pid: int) -> int:
    """None for one that has ended."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    return 0


def open_files(pid: int) -> int:
    """Files, sockets and whatever else it has open; none for one that has ended."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _of(pid: int, file: str, name: str) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/{file}").read_text("utf-8").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * _KIB
    return 0
