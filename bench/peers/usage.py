"""What a server takes of the machine: processor time and memory of all its processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bench.servers.processes import HOST, Server, children_of


def cpu_s(roots: Sequence[int]) -> float:
    """Seconds of processor time of these processes and of all that they started, ended ones too."""
    return sum(Server(HOST, 0, pid).cpu_s() for pid in roots)


def memory_mb(roots: Sequence[int]) -> float:
    """Memory of these processes and all that they started, in MB: what several share counts once (PSS)."""
    return sum(_proportional_kib(pid) for root in roots for pid in _tree(root)) * 1024 / 1e6


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for child in children_of(pid):
        yield from _tree(child)


def _proportional_kib(pid: int) -> int:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
