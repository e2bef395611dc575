"""Finds the build to serve: the one that was named or published, or the one that a checkpoint is exported to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, CURRENT, REPOSITORY_FOLDER, Manifest, find_build
from glmserve.errors import BadArtifact, NotCertified
from glmserve.system.bundled_files import DEMO

DEFAULT_PRECISION = "auto"
LEAST_START_TIMEOUT_S = 900.0
_SLOW_DISK = 10e6
"""Bytes a second, of a network's file system."""
PRECISIONS = ("auto", "fp32", "fp16", "int8", "int4")
_CUDA_PRECISION = "bf16"  # the export says what else it takes


class UnclearChoice(Exception):
    """The settings do not say what to serve; the message says which of them are wrong or contradict each other."""


class NoBuild(Exception):
    """There is nothing to serve; the message says what is missing and which setting names it."""


class ExportFailed(Exception):
    """The checkpoint could not be exported; the export has printed why."""


class Unverified(Exception):
    """The build has no certificate that holds, and no setting allows serving it without."""


@dataclass(frozen=True)
class Choice:
    """The build to serve, where it came from in words, and what is wrong with its certificate, if anything is."""

    folder: Path
    origin: str
    warning: str | None = None


def check_precision(precision: str | None) -> None:
    """Raises UnclearChoice for a precision that does not exist."""
    if precision and precision not in (*PRECISIONS, _CUDA_PRECISION):
        raise UnclearChoice(f"{precision} is no precision; choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.")


def choose(
    build: str | None, checkpoint: str | None, precision: str | None, out: Path, is_certificate_required: bool
) -> Choice:
    """The named build, else the named checkpoint's (exported now if need be), else the published one, else the demo's.

    Raises UnclearChoice, NoBuild or ExportFailed when there is none, Unverified when its certificate does not hold. A
    build without a certificate is served with a warning where somebody named the checkpoint it was exported from.
    """
    is_published = (out / CURRENT).is_symlink()
    _check_choice(build, checkpoint, precision, out / CURRENT if is_published else None)
    if build:
        folder, origin = named_build(out, build), f"build {build}, as named"
    elif checkpoint or precision:
        folder = exported_build(checkpoint or DEMO, out, precision or DEFAULT_PRECISION)
        origin = f"build {folder} of {f'checkpoint {checkpoint}' if checkpoint else 'the demo'}"
    elif is_published:
        folder = named_build(out, str((out / CURRENT).resolve()))  # followed once: it may change while we run
        origin = f"build {folder.name}, which was published as {out / CURRENT}"
    else:
        folder = exported_build(DEMO, out, DEFAULT_PRECISION)
        origin = f"build {folder} of the demo; nothing was published as {out / CURRENT}"
    may_lack_certificate = checkpoint is not None and not build and not (folder / CERTIFICATE_FILE).exists()
    return Choice(folder, origin, _fault(folder, is_certificate_required and not may_lack_certificate))


def named_build(out: Path, name: str) -> Path:
    """The build of a digest in `out` or in a folder; raises NoBuild when this version cannot serve it."""
    try:
        folder = find_build(out, name)
        Manifest.read(folder)
    except BadArtifact as error:
        raise NoBuild(f"{error.message} BUILD= names a build; `python -m export list` lists them.") from None
    if not (folder / REPOSITORY_FOLDER).is_dir():
        raise NoBuild(f"Build {folder} has no folder {REPOSITORY_FOLDER}: export it again.")
    return folder


def exported_build(checkpoint: str, out: Path, precision: str) -> Path:
    """The build of a checkpoint, exported now unless it was before: the last line that the export prints.

    `checkpoint` is a folder, `demo`, or the hub's `owner/name[@revision]`, which the export downloads.
    """
    if checkpoint != DEMO and not (Path(checkpoint) / "config.json").is_file() and not _is_on_hub(checkpoint):
        raise NoBuild(
            f"There is no checkpoint in {checkpoint}; CHECKPOINT= takes a Hugging Face folder, or a name on the hub "
            f"(owner/name), or {DEMO}."
        )
    options = ["--checkpoint", checkpoint, "--out", str(out), "--precision", precision]
    command = [sys.executable, "-m", "export", "build", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise ExportFailed(f"Exporting checkpoint {checkpoint} failed (exit code {done.returncode}).")
    return named_build(out, lines[-1])


def start_timeout_s(folder: Path) -> float:
    """How long loading a build may take where nobody says: a quarter of an hour, or as long as a slow disk needs to be
    read from end to end."""
    size = sum(path.stat().st_size for path in (folder / REPOSITORY_FOLDER).rglob("*") if path.is_file())
    return max(LEAST_START_TIMEOUT_S, round(size / _SLOW_DISK))


def _check_choice(build: str | None, checkpoint: str | None, precision: str | None, published: Path | None) -> None:
    if build and (checkpoint or precision):
        raise UnclearChoice(
            "BUILD= names a build that was exported before, while CHECKPOINT= and PRECISION= say what to export: "
            "use the one or the others."
        )
    if precision and not checkpoint and published:
        raise UnclearChoice(
            f"PRECISION={precision} says how to export a checkpoint, but none is named, and {published} was published: "
            f"name a checkpoint with CHECKPOINT= (CHECKPOINT={DEMO} is the demo), or leave PRECISION= out."
        )


def _is_on_hub(checkpoint: str) -> bool:
    """Whether it looks like a name on the hub, and no file or folder here has that name."""
    path = Path(checkpoint)
    return not path.exists() and not path.is_absolute() and len(path.parts) == 2 and ".." not in path.parts


def _fault(folder: Path, is_certificate_required: bool) -> str | None:
    """What is wrong with a build's certificate, or None; raises Unverified where it must hold and does not."""
    try:
        Certificate.demand(folder, Manifest.read(folder))
    except NotCertified as error:
        if is_certificate_required:
            raise Unverified(error.message) from None
        return error.message
    return None
