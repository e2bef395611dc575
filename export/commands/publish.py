"""`publish` and `rollback`: which build is served."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from export.commands.common import (
    BUILDS,
    BuildArgument,
    DeviceOption,
    OutOption,
    device_for,
    exit_with_sentence,
    plain_console,
)
from export.precision import Target
from export.store import publish as store
from export.store.build_store import PUBLISH_LOCK, build_in, locked
from export.verify.smoke_test import smoke_test
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CURRENT, MANIFEST_FILE, Manifest


@exit_with_sentence
def publish(context: typer.Context, build: BuildArgument, out: OutOption = BUILDS, device: DeviceOption = None) -> None:
    """Make a build the current one, if its certificate is valid and it answers its canary question. A build that is
    named by its folder is published in the folder that it lies in.

    A running service keeps the build it was started with. The next start serves this one.
    """
    if _is_default(context, "out"):
        out = _folder_around(build, out)
    found = build_in(out, build)
    with locked(out, PUBLISH_LOCK):
        _publish(found, device, plain_console(stderr=True))
        typer.echo(str(out / CURRENT))


@exit_with_sentence
def rollback(out: OutOption = BUILDS, device: DeviceOption = None) -> None:
    """Make the build that was current before this one current again. The same checks apply as for publish."""
    if not out.is_dir():
        store.previous(out)  # says so; the lock would make the folder
    with locked(out, PUBLISH_LOCK):
        _try_out(out / store.previous(out).digest, device, plain_console(stderr=True))
        entry = store.rollback(out)
        typer.echo(f"{out / CURRENT} is {entry.digest} again.")


def _is_default(context: typer.Context, name: str) -> bool:
    """Whether nobody chose an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _folder_around(build: str, out: Path) -> Path:
    """The folder of builds that a build named by its folder lies in; `out` for one that is named by its digest."""
    is_digest = Path(build).name == build and (out / build).is_dir()
    return out if is_digest or not (Path(build) / MANIFEST_FILE).is_file() else Path(build).resolve().parent


def _publish(build: Path, device: Target | None, console: Console) -> None:
    _try_out(build, device, console)
    entry = store.publish(build.parent, build.name)
    console.print(f"Published {entry.digest} as number {entry.number}.")


def _try_out(build: Path, device: Target | None, console: Console) -> None:
    """Raises BadArtifact, NotCertified or NotAnswered when a build must not be served."""
    manifest = Manifest.read(build)
    Certificate.demand(build, manifest)
    manifest.check(build)
    console.print(f"Its answer to the canary question: {smoke_test(build, device_for(manifest, device))}")
