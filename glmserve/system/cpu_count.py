"""How many CPU cores this process may use, by its affinity and its container's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_PROCESSORS = Path("/sys/devices/system/cpu")


def cores(quota_file: Path = _QUOTA_FILE) -> int:
    """Cores that this process may use: those of its affinity, and no more than its container's CPU quota."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text("utf-8").split()
        return max(1, min(bound, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroups here, or no quota ("max")
        return bound


def physical_cores(quota_file: Path = _QUOTA_FILE, processors: Path = _PROCESSORS) -> int:
    """The same, and two that are one core's hardware threads count once: they share what multiplies."""
    return min(cores(quota_file), len({_siblings(processors, number) for number in os.sched_getaffinity(0)}))


def _siblings(processors: Path, number: int) -> str:
    try:
        return (processors / f"cpu{number}" / "topology" / "thread_siblings_list").read_text("ascii").strip()
    except OSError:  # the kernel does not say
        return str(number)
