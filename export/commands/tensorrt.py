"""`tensorrt`: makes, or finds, the TensorRT engine of a build's picture encoder for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.commands.common import BUILDS, BuildArgument, OutOption, exit_with_sentence
from export.store.build_store import ENGINES
from export.tensorrt.compile import decoder_faults
from export.tensorrt.engine_cache import make_engine, repository_to_serve
from glmserve.build.manifest import REPOSITORY_FOLDER, find_build


@exit_with_sentence
def tensorrt(
    build: BuildArgument,
    out: OutOption = BUILDS,
    engines: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where engines are kept; `engines` beside the build if not given."),
    ] = None,
    find: Annotated[
        bool,
        typer.Option("--find", help="Make nothing: name the repository to serve, the build's own if no engine fits."),
    ] = False,
) -> None:
    """Make the picture encoder's engine on the machine that will serve it; the last line is the model repository."""
    folder = find_build(out, build)
    kept = engines or folder.resolve().parent / ENGINES
    if find:
        repository = repository_to_serve(folder, kept, lambda text: typer.echo(text, err=True))
    else:
        repository = make_engine(folder, kept) / REPOSITORY_FOLDER
        _tell_of_decoder(folder)
    typer.echo(str(repository))


def _tell_of_decoder(build: Path) -> None:
    faults = decoder_faults(build)
    typer.echo(faults[0] if faults else "TensorRT parses the decoder's standard graph; ONNX Runtime runs it.", err=True)
