"""Runs a piece of Python in a process of its own and tells by how much its memory grew at the most."""

from __future__ import annotations

import os
import subprocess
import sys

_PEAK = """
def peak_kb():
    with open("/proc/self/status") as status:  # ru_maxrss would begin with that of the process before exec
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
"""


def growth_bytes(imports: str, code: str, *arguments: str, timeout_s: float = 240) -> int:
    """Bytes by which the peak of resident memory rises while `code` runs; what it imports before does not count."""
    program = f"{_PEAK}\n{imports}\nbefore = peak_kb()\n{code}\nprint(peak_kb() - before)"
    command = [sys.executable, "-c", program, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # torch would spin on cores that others use
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024
