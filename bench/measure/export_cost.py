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


def measure(checkpoint: Path, scratch: Path, precisions: Sequence[Precision], say: Say) -> list[Row]:
    """One row a precision: the checkpoint is copied, built, and the build removed. `scratch` needs room for a copy."""
    scratch.mkdir(parents=True, exist_ok=True)
    copy, builds, rows = scratch / "copy", scratch / "builds", []
    size = sum(path.stat().st_size for path in checkpoint.iterdir() if path.is_file())
    for precision in precisions:
        say(f"copying {size / _GIB:.1f} GiB beside the {precision} build ...")
        copy_s, _ = _run(["cp", "--recursive", "--reflink=never", str(checkpoint), str(copy)])
        shutil.rmtree(copy)
        target = Target.CPU if precision is Precision.FP32 else Target.CUDA  # the others are for a GPU
        command = [sys.executable, "-m", "export", "build", "--checkpoint", str(checkpoint), "--out", str(builds)]
        build_s, peak_bytes = _run([*command, "--precision", precision, "--target", target])
        files = [path.stat() for path in builds.rglob("*") if path.is_file()]
        shutil.rmtree(builds)
        found = {
            "checkpoint_gib": size / _GIB,
            "peak_gib": peak_bytes / _GIB,
            "written_gib": sum(file.st_size for file in files if file.st_nlink == 1) / _GIB,
            "build_s": build_s,
            "copy_s": copy_s,
            "time_over_copy": build_s / copy_s,
        }
        rows.append({"precision": precision, **{name: rounded(value) for name, value in found.items()}})
        say(str(rows[-1]))
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
