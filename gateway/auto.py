"""What `auto` in a setting means: how many processes, threads and decoding pictures so many cores are good for."""

from __future__ import annotations

_MOST_WORKERS = 4
_THREADS_A_CORE, _LEAST_THREADS, _MOST_THREADS = 16, 64, 256


def workers(core_count: int) -> int:
    """One process for every two cores: the other one decodes pictures, which needs no lock of Python's."""
    return min(_MOST_WORKERS, max(1, core_count // 2))


def threads(core_count: int) -> int:
    """Of one process; nearly all of them wait for the model at any time."""
    return min(_MOST_THREADS, max(_LEAST_THREADS, _THREADS_A_CORE * core_count))


def decode_slots(core_count: int) -> int:
    """All cores but one, which is left to refuse and to stream."""
    return max(1, core_count - 1)
