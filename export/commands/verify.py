"""`verify`: compares a build with the checkpoint it was made of, and writes its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.commands.common import speaks
from export.failures import Exit, MissingPackage


@speaks
def verify(
    build: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The build's folder.")],
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The Hugging Face checkpoint folder.")],
    answers: Annotated[int, typer.Option(min=1, help="Greedy answers to compare token by token.")] = 8,
) -> None:
    """Compare every stage of a build with transformers and write its certificate; needs torch and transformers."""
    try:
        from export.certify import certify
    except ImportError:
        raise MissingPackage("verify compares with transformers: pip install -r requirements/test.txt") from None
    if not certify(build, checkpoint, answers, Console()):
        raise typer.Exit(Exit.PARITY_FAILED)
