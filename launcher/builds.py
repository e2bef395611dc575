"""Finds the build to serve: the one that was named or published, or the one that a checkpoint is exported to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, CURRENT, REPOSITORY_FOLDER, Manifest, find_build
from glmserve.errors import BadArtifact, NotCertified

DEMO = Path("demo/checkpoint")
DEFAULT_PRECISION = "fp32"


class UnclearChoice(Exception):
    """What is to be served was named twice, or by half; the message says which settings do not go together."""


class NoBuild(Exception):
    """There is nothing to serve; the message says what is missing and which setting names it."""


class ExportFailed(Exception):
    """The checkpoint could not be exported; the export's own words are above."""


class Unverified(Exception):
    """Nobody vouches for the build's answers, and nobody said that it is to be served all the same."""


@dataclass(frozen=True)
class Choice:
    """The build to serve, where it came from in words, and what is wrong with its certificate, if anything is."""

    folder: Path
    origin: str
    warning: str | None = None


def choose(
    build: str | None, checkpoint: str | None, precision: str | None, out: Path, is_certificate_required: bool
) -> Choice:
    """The named build, else the named checkpoint's (made now if need be), else the published one, else the demo's.

    Raises UnclearChoice, NoBuild or ExportFailed when there is none, Unverified when its certificate does not hold. One
    that has none is served with a warning where it was exported from a checkpoint that somebody named.
    """
    is_published = (out / CURRENT).is_symlink()
    _check_choice(build, checkpoint, precision, out / CURRENT if is_published else None)
    if build:
        folder, origin = named_build(out, build), f"build {build}, as named"
    elif checkpoint or precision:
        folder = exported_build(checkpoint or str(DEMO), out, precision or DEFAULT_PRECISION)
        origin = f"build {folder} of checkpoint {checkpoint or DEMO}"
    elif is_published:
        folder = named_build(out, str((out / CURRENT).resolve()))  # followed once: it may change while we run
        origin = f"build {folder.name}, which was published as {out / CURRENT}"
    else:
        folder = exported_build(str(DEMO), out, DEFAULT_PRECISION)
        origin = f"build {folder} of the demo; nothing was published as {out / CURRENT}"
    may_lack = checkpoint is not None and not build and not (folder / CERTIFICATE_FILE).exists()
    return Choice(folder, origin, _fault(folder, is_certificate_required and not may_lack))


def named_build(out: Path, name: str) -> Path:
    """The build of a digest in `out` or in a folder; raises NoBuild when it is none that this version serves."""
    try:
        folder = find_build(out, name)
        Manifest.read(folder)
    except BadArtifact as error:
        raise NoBuild(f"{error.message} BUILD= names it; `python -m export list` lists those there are.") from None
    if not (folder / REPOSITORY_FOLDER).is_dir():
        raise NoBuild(f"Build {folder} has no {REPOSITORY_FOLDER}.")
    return folder


def exported_build(checkpoint: str, out: Path, precision: str) -> Path:
    """The build of a checkpoint, made now if it was not yet: the last line that the export prints.

    `checkpoint` is a folder, or the hub's `owner/name[@revision]`, which the export downloads.
    """
    if not (Path(checkpoint) / "config.json").is_file() and not _is_on_hub(checkpoint):
        raise NoBuild(
            f"There is no checkpoint in {checkpoint}; CHECKPOINT= takes a Hugging Face folder, or a name on the hub "
            "(owner/name)."
        )
    options = ["--checkpoint", checkpoint, "--out", str(out), "--precision", precision]
    command = [sys.executable, "-m", "export", "build", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise ExportFailed(f"The export of {checkpoint} failed with code {done.returncode}.")
    return named_build(out, lines[-1])


def _check_choice(build: str | None, checkpoint: str | None, precision: str | None, published: Path | None) -> None:
    if build and (checkpoint or precision):
        raise UnclearChoice(
            "BUILD= names a build that was exported before, and CHECKPOINT= and PRECISION= say what to export: "
            "leave out the one or the others."
        )
    if precision and not checkpoint and published:
        raise UnclearChoice(
            f"PRECISION={precision} says how a checkpoint is to be exported, but none is named, and {published} was "
            f"published: name one with CHECKPOINT= (the demo is {DEMO}), or leave PRECISION= out."
        )


def _is_on_hub(checkpoint: str) -> bool:
    """Whether it reads as a name on the hub, and nothing of that name is here."""
    path = Path(checkpoint)
    return not path.exists() and not path.is_absolute() and len(path.parts) == 2 and ".." not in path.parts


def _fault(folder: Path, is_certificate_required: bool) -> str | None:
    """What is wrong with a build's certificate, or None; raises Unverified where nothing may be."""
    try:
        Certificate.demand(folder, Manifest.read(folder))
    except NotCertified as error:
        if is_certificate_required:
            raise Unverified(error.message) from None
        return error.message
    return None
