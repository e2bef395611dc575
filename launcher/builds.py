"""Finds the build to serve: the one that was named, or the one that a checkpoint is exported to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from glmserve.errors import BadArtifact
from glmserve.manifest import REPOSITORY_FOLDER, Manifest


class NoBuild(Exception):
    """There is nothing to serve; the message says what is missing and which setting names it."""


class ExportFailed(Exception):
    """The checkpoint could not be exported; the export's own words are above."""


def named_build(folder: Path) -> Path:
    """The build in a folder; raises NoBuild when it is none that this version serves."""
    if not folder.is_dir():
        raise NoBuild(f"There is no build folder {folder}; choose another with --build or BUILD=.")
    try:
        Manifest.read(folder)
    except BadArtifact as error:
        raise NoBuild(error.message) from None
    if not (folder / REPOSITORY_FOLDER).is_dir():
        raise NoBuild(f"Build {folder} has no {REPOSITORY_FOLDER}.")
    return folder


def exported_build(checkpoint: Path, out: Path, precision: str) -> Path:
    """The build of a checkpoint, made now if it was not yet: the last line that the export prints."""
    if not (checkpoint / "config.json").is_file():
        raise NoBuild(f"There is no checkpoint in {checkpoint}; choose another with --checkpoint or CHECKPOINT=.")
    options = ["--checkpoint", str(checkpoint), "--out", str(out), "--precision", precision]
    command = [sys.executable, "-m", "export", "build", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise ExportFailed(f"The export of {checkpoint} failed with code {done.returncode}.")
    return named_build(Path(lines[-1]))
