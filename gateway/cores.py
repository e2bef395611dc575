"""How many processes, threads and decoded pictures at a time a machine is good for: what `auto` in a setting means."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
_MOST_WORKERS = 4
_THREADS_A_CORE, _LEAST_THREADS, _MOST_THREADS = 16, 64, 256


def cores(quota_file: Path = _QUOTA_FILE) -> int:
    """Cores that this process may use: those it is bound to, and no more than its container's share of time."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text("utf-8").split()
        return max(1, min(bound, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroups here, or no quota ("max")
        return bound


def workers(core_count: int) -> int:
    """One process for every two cores: the other one decodes pictures, which needs no lock of Python's."""
    return min(_MOST_WORKERS, max(1, core_count // 2))


def threads(core_count: int) -> int:
    """Of one process; nearly all of them wait for the model at any time."""
    return min(_MOST_THREADS, max(_LEAST_THREADS, _THREADS_A_CORE * core_count))


def decode_slots(core_count: int) -> int:
    """All cores but one, which is left to refuse and to stream."""
    return max(1, core_count - 1)
