"""How much memory a build will take: what this process holds already, and what the costliest tensor adds."""

from __future__ import annotations

import os
from pathlib import Path

from export.build.inventory import BuildInventory


def peak_bytes(inventory: BuildInventory) -> int:
    """Resident bytes at the peak of a build, foretold by a process that has imported and read what a build does."""
    return resident_bytes() + inventory.memory_bytes


def resident_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
