"""`tensorrt`: compiles, or finds, the TensorRT engine of a build's vision encoder for this machine."""

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
        typer.Option(file_okay=False, help="The folder that holds all engines. Default: `engines` beside the build."),
    ] = None,
    find: Annotated[
        bool,
        typer.Option(
            "--find", help="Compile nothing. Print the model repository to serve: the build's own if no engine fits."
        ),
    ] = False,
) -> None:
    """Compile the vision encoder for this machine's GPU. The last line printed is the model repository to serve."""
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
