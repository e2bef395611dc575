"""What an export costs: its peak memory, and its time beside a plain copy of the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.records import Row, Say, rounded
from export.precision import Precision, Target

_GIB = 1024**3
_TIMEOUT_S = 4 * 3600
_TARGETS = {Precision.FP32: Target.CPU}  # the others are for a GPU


def measure(checkpoint: Path, scratch: Path, precisions: Sequence[Precision], say: Say) -> list[Row]:
    """One row a precision: the checkpoint is copied, built, and the build removed. `scratch` needs room for a copy."""
    scratch.mkdir(parents=True, exist_ok=True)
    size = sum(path.stat().st_size for path in checkpoint.iterdir() if path.is_file())
    rows = []
    for precision in precisions:
        say(f"copying {size / _GIB:.1f} GiB beside the {precision} build ...")
        copy = scratch / "copy"
        copy_s, _ = _run(["cp", "--recursive", "--reflink=never", str(checkpoint), str(copy)])
        shutil.rmtree(copy)
        builds = scratch / "builds"
        target = _TARGETS.get(precision, Target.CUDA)
        command = [sys.executable, "-m", "export", "build", "--checkpoint", str(checkpoint), "--out", str(builds)]
        build_s, peak_bytes = _run([*command, "--precision", precision, "--target", target])
        written = sum(path.stat().st_size for path in builds.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
        shutil.rmtree(builds)
        row: Row = {
            "precision": precision,
            "checkpoint_gib": rounded(size / _GIB),
            "peak_gib": rounded(peak_bytes / _GIB),
            "written_gib": rounded(written / _GIB),
            "build_s": rounded(build_s),
            "copy_s": rounded(copy_s),
            "time_over_copy": rounded(build_s / copy_s),
        }
        say(str(row))
        rows.append(row)
    return rows


def _run(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command; raises CalledProcessError when it fails.

    Mapped pages of files count as resident, as they do for a container's limit.
    """
    began_s = time.monotonic()
    process = subprocess.Popen(["timeout", str(_TIMEOUT_S), *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.monotonic() - began_s, usage.ru_maxrss * 1024
