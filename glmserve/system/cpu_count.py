"""How many CPU cores this process may use, by its affinity and its container's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_PROCESSORS = Path("/sys/devices/system/cpu")


def cores(quota_file: Path = _QUOTA_FILE) -> int:
    """Cores that this process may use: those of its affinity, and no more than its container's CPU quota."""
    bound, quota = len(os.sched_getaffinity(0)), _quota(quota_file)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def compute_threads(quota_file: Path = _QUOTA_FILE, processors: Path = _PROCESSORS) -> int:
    """Threads that may compute without a pause: one for each core, however many hardware threads it has.

    A quota that is less than those has to last for the rest of the process too: where it is used up, the kernel stops
    all threads until the next tenth of a second. So one of its cores is left over.
    """
    physical = len({_siblings(processors, number) for number in os.sched_getaffinity(0)})
    quota = _quota(quota_file)
    return physical if quota is None or quota >= physical else max(1, int(quota) - 1)


def _quota(file: Path) -> float | None:
    """The container's quota in cores; None without cgroups or without a quota ("max")."""
    try:
        quota, period = file.read_text("utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _siblings(processors: Path, number: int) -> str:
    try:
        return (processors / f"cpu{number}" / "topology" / "thread_siblings_list").read_text("ascii").strip()
    except OSError:  # the kernel does not say
        return str(number)
