"""The synthetic checkpoints and their builds, made once and kept in bench/.cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.checkpoints.synthetic import Shape, fingerprint, write_checkpoint
from glmserve.build.manifest import MANIFEST_FILE

CACHE = Path(__file__).resolve().parents[1] / ".cache"
FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)
"""Those that are measured."""
_PROJECT = Path(__file__).resolve().parents[2]
_EXPORT_TIMEOUT_S = 3600.0


class ExportFailed(Exception):
    """A build could not be made; the export's own words are in the message."""


def checkpoint_of(shape: Shape, say: Callable[[str], None]) -> Path:
    """The checkpoint folder of a shape: the one that is there already, or a new one."""
    folder = CACHE / "checkpoints" / f"{shape.name}-{fingerprint(shape)}"
    if not folder.is_dir():
        for old in CACHE.glob(f"*/{shape.name}-*"):  # with its builds
            shutil.rmtree(old)
        say(f"Writing the {shape.name} checkpoint ...")
        partial = folder.with_name(f".partial-{uuid.uuid4().hex}")
        try:
            write_checkpoint(shape, partial).rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def build_of(
    checkpoint: Path,
    precision: str,
    say: Callable[[str], None],
    target: str = "cpu",
    out: Path | None = None,
    kv: str = "same",
) -> Path:
    """The build of a checkpoint, made by the export's own command line; one of an older exporter makes room for it."""
    out = out or CACHE / "builds" / f"{checkpoint.name}-{precision}"
    say(f"Exporting {checkpoint.name} in {precision}, if it was not yet ...")
    options = ["--checkpoint", str(checkpoint), "--out", str(out), "--precision", precision, "--target", target]
    options += ["--kv", kv]
    done = _export(["build", *options], _EXPORT_TIMEOUT_S)
    if done.returncode != 0:
        raise ExportFailed(f"The export of {checkpoint} in {precision} failed.\n{done.stderr.strip()}")
    build = Path(done.stdout.strip().splitlines()[-1])
    for other in out.glob(f"*/{MANIFEST_FILE}"):
        if other.parent.name != build.name:
            shutil.rmtree(other.parent)
    return build


def _export(arguments: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export", *arguments]
    return subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, timeout=timeout_s, check=False)
