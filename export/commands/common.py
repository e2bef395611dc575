"""What every command shares: its options, and how an error becomes a sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from export.build.vision_backend import VisionBackend
from export.errors import MEANING, exit_code, named_files
from export.precision import KvPrecision, Precision, Target
from glmserve.build.manifest import Manifest
from glmserve.engine.runtime.device import DeviceName
from glmserve.errors import GlmServeError

P = ParamSpec("P")

WIDE = 160
"""Columns of a table where no terminal says how many there are."""

BUILDS = Path("builds")
EXIT_CODES = "Exit codes: " + ", ".join(f"{code} {text}" for code, text in sorted(MEANING.items())) + "."

CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", metavar="DIR|OWNER/NAME[@REVISION]", help="A Hugging Face folder, or a hub id.")
]
OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="Where builds are kept.")]
PrecisionOption = Annotated[Precision, typer.Option(help="What weights are kept in; int8 is the fast one on a CPU.")]
KvOption = Annotated[
    KvPrecision, typer.Option(help="What KV is kept in; int8 holds two to four times the tokens in the same memory.")
]
TargetOption = Annotated[Target, typer.Option(help="Where the build is to run.")]

VisionBackendOption = Annotated[
    VisionBackend,
    typer.Option(help="Who runs the picture encoder: the engine, or a backend of Triton's; tensorrt: see the command."),
]

BuildArgument = Annotated[str, typer.Argument(metavar="BUILD", help="A build's digest, or its folder.")]
DeviceOption = Annotated[
    Target | None, typer.Option(help="Where the comparison runs; the build's own target if not given.")
]


def plain_console(stderr: bool = False, width: int | None = None) -> Console:
    """Prints text as it is, since what folders are called and models answer is no markup; where there is no terminal,
    no line is broken. `width` is a terminal's own if not given."""
    console = Console(stderr=stderr, markup=False, emoji=False, width=width)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, markup=False, emoji=False, width=WIDE, soft_wrap=True)


def device_for(manifest: Manifest, chosen: Target | None) -> DeviceName:
    """The device that a build is tried on."""
    return "cuda" if (chosen or manifest.target) == Target.CUDA else "cpu"


def exit_with_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are a sentence on stderr and the exit code of their kind."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with named_files():
                command(*args, **kwargs)
        except GlmServeError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(exit_code(error)) from None

    return run
