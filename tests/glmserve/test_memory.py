"""What a process may plan with is what its machine or its control groups have, whatever is free just now."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmserve.system.memory import total_memory_bytes

GIB = 1024**3
MEMINFO = f"MemTotal: {24 * 1024**2} kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n"


def machine(tmp_path: Path, groups: str, limits: dict[str, str]) -> int:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self/cgroup").write_text(groups)
    for name, text in limits.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    return total_memory_bytes(proc, cgroups)


@pytest.mark.parametrize(
    ("groups", "limits", "gib"),
    [
        ("0::/\n", {}, 24),
        ("0::/\n", {"memory.max": "max\n"}, 24),
        ("0::/\n", {"memory.max": f"{8 * GIB}\n"}, 8),
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": f"{6 * GIB}", "a/b/memory.max": f"{7 * GIB}"}, 6),
        ("0::/the/hosts/path\n", {"memory.max": f"{4 * GIB}"}, 4),
        ("8:pids:/\n4:memory:/docker/x\n0::/\n", {"memory/memory.limit_in_bytes": f"{5 * GIB}"}, 5),
        ("4:cpu,memory:/x\n", {"memory/x/memory.limit_in_bytes": f"{3 * GIB}"}, 3),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 24),
    ],
    ids=["none", "v2 without", "v2", "v2 nested", "v2 in a container", "v1 in a container", "v1", "v1 without"],
)
def test_the_smallest_limit_counts(tmp_path: Path, groups: str, limits: dict[str, str], gib: int) -> None:
    assert machine(tmp_path, groups, limits) == gib * GIB


def test_this_machine_has_memory() -> None:
    assert total_memory_bytes() > GIB // 4
