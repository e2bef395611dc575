"""The synthetic checkpoints and their builds, made once and kept in bench/.cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from bench.checkpoints.synthetic import Shape, fingerprint, write_checkpoint
from bench.records import Say
from glmserve.build.manifest import MANIFEST_FILE

CACHE = Path(__file__).resolve().parents[1] / ".cache"
FP32, INT8 = "fp32", "int8"
PRECISIONS = (FP32, INT8)
"""Those that are measured."""
_PROJECT = Path(__file__).resolve().parents[2]
_EXPORT_TIMEOUT_S = 3600.0


class ExportFailed(Exception):
    """A build could not be made; the export's own words are in the message."""


def checkpoint_of(shape: Shape, say: Say) -> Path:
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
    checkpoint: Path, precision: str, say: Say, target: str = "cpu", out: Path | None = None, kv: str = "same"
) -> Path:
    """The build of a checkpoint, made by the export's own command line; builds of an older exporter are removed."""
    out = out or CACHE / "builds" / f"{checkpoint.name}-{precision}"
    say(f"Exporting {checkpoint.name} in {precision}, if it was not yet ...")
    command = [sys.executable, "-m", "export", "build", "--checkpoint", str(checkpoint), "--out", str(out)]
    command += ["--precision", precision, "--target", target, "--kv", kv]
    done = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, timeout=_EXPORT_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise ExportFailed(f"The export of {checkpoint} in {precision} failed.\n{done.stderr.strip()}")
    build = Path(done.stdout.strip().splitlines()[-1])
    for other in out.glob(f"*/{MANIFEST_FILE}"):
        if other.parent.name != build.name:
            shutil.rmtree(other.parent)
    return build
