"""`list` and `prune`: the builds there are."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from export.commands.common import BUILDS, WIDE, OutOption, exit_with_sentence, plain_console
from export.store.build_store import PUBLISH_LOCK, builds_in, locked
from export.store.prune import prune, served, to_prune
from export.store.publish import current, history
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, MANIFEST_FILE, Manifest
from glmserve.errors import NotCertified

_GB = 1e9
_COLUMNS = ("digest", "made", "precision", "target", "gb", "certificate", "source")


@exit_with_sentence
def list_builds(
    out: OutOption = BUILDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every build, which one is current, and every publish and rollback so far."""
    now, choices = current(out), history(out)
    rows = [_row(path, manifest) for path, manifest in builds_in(out)]
    digest = now.digest if now else None
    if as_json:
        found = {"current": digest, "builds": rows, "history": [asdict(entry) for entry in choices]}
        typer.echo(json.dumps(found, indent=1))
        return
    if not rows:
        typer.echo(f"There is no build in {out}: `build` makes one, and --out names the folder of builds.", err=True)
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for row in rows:
        mark = "*" if row["digest"] == digest else " "
        table.add_row(f"{mark} {row['digest']}", *(str(row[key]) for key in _COLUMNS[1:]))
    console = plain_console(width=WIDE)
    console.print(table)
    if choices:
        console.print("\n* is current. Every publish and rollback, the latest first:")
    for entry in choices:
        console.print(f"{entry.number:>4}  {entry.made}  {entry.action:<8}  {entry.digest}")


@exit_with_sentence
def prune_builds(
    out: OutOption = BUILDS,
    keep: Annotated[int, typer.Option(min=0, help="How many earlier builds to keep for rollback.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove old builds, and what killed commands left behind.

    Kept are the current build, those that rollback would reach first, those made since the current one, and every build
    that a running service uses.
    """
    if not out.is_dir():
        typer.echo(f"There is no folder {out}, and so nothing to remove; --out names the folder of builds.", err=True)
        return
    with locked(out, PUBLISH_LOCK):
        builds = to_prune(out, keep)
        stay = served(builds) if dry_run else prune(out, builds)
    for path in builds:
        if path not in stay:
            typer.echo(path.name)
    for path in stay:
        typer.echo(f"{path.name} stays: a service uses it, or its file system cannot tell whether one does.", err=True)


def _row(path: Path, manifest: Manifest) -> dict[str, Any]:
    made = datetime.fromtimestamp((path / MANIFEST_FILE).stat().st_mtime, UTC)
    size = sum((path / name).stat().st_size for name in manifest.files if (path / name).is_file())
    return {
        "digest": manifest.digest,
        "made": made.isoformat(timespec="seconds"),
        "precision": manifest.precision,
        "target": manifest.target,
        "gb": round(size / _GB, 3),
        "certificate": _vouched_by(path, manifest),
        "source": manifest.source,
    }


def _vouched_by(path: Path, manifest: Manifest) -> str:
    """What the build was compared with, or why its certificate is not valid."""
    try:
        found = Certificate.find(path, manifest)
    except NotCertified as error:
        return error.message.removeprefix(f"{CERTIFICATE_FILE} of build {manifest.digest} ")
    return "none" if found is None else found.against
