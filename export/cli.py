"""The export's command line: `python -m export build|verify`."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.build import build as make_build
from export.precision import Precision, Target
from export.tensorrt_command import tensorrt
from export.vision_backend import VisionBackend
from glmserve.errors import BadArtifact, GlmServeError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn a Hugging Face checkpoint into a build that Triton serves, and prove that it answers alike.",
)


class Exit(IntEnum):
    """Why the command ended; 2 is a wrong command line."""

    BAD_ARTIFACT = 3
    PARITY_FAILED = 4
    MISSING_PACKAGE = 5


Folder = Annotated[Path, typer.Option(exists=True, file_okay=False, help="The Hugging Face checkpoint folder.")]


@app.command()
def build(
    checkpoint: Folder,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where builds are kept.")] = Path("builds"),
    precision: Annotated[Precision, typer.Option(help="What weights are kept in; int8 is the fast one on a CPU.")] = (
        Precision.FP32
    ),
    target: Annotated[Target, typer.Option(help="Where the build is to run.")] = Target.CPU,
    vision_backend: Annotated[
        VisionBackend, typer.Option(help="What runs the picture encoder in Triton; tensorrt: see the command.")
    ] = VisionBackend.PYTHON,
) -> None:
    """Write the checkpoint's build; its folder is the last line printed. An existing build is found, not made again."""
    try:
        path = make_build(checkpoint, out, Console(stderr=True), precision, target, vision_backend)
    except GlmServeError as error:
        raise _fail(error) from None
    typer.echo(str(path))


@app.command()
def verify(
    build: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The build's folder.")],
    checkpoint: Folder,
    answers: Annotated[int, typer.Option(min=1, help="Greedy answers to compare token by token.")] = 8,
) -> None:
    """Compare every stage of a build with transformers and write its certificate; needs torch and transformers."""
    try:
        from export.certify import certify
    except ImportError:
        typer.echo("verify compares with transformers: pip install -r requirements/test.txt", err=True)
        raise typer.Exit(Exit.MISSING_PACKAGE) from None
    try:
        passed = certify(build, checkpoint, answers, Console())
    except GlmServeError as error:
        raise _fail(error) from None
    if not passed:
        raise typer.Exit(Exit.PARITY_FAILED)


app.command()(tensorrt)


def _fail(error: GlmServeError) -> typer.Exit:
    typer.echo(error.message, err=True)
    return typer.Exit(Exit.BAD_ARTIFACT if isinstance(error, BadArtifact) else 1)


def main() -> None:
    app()
