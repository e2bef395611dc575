"""`verify`: compares a build with the checkpoint it was made of, and writes its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.certificate.writer import GOLDEN, LAYER_BY_LAYER, TRANSFORMERS, WHOLE, check_writable, write_certificate
from export.checkpoint.hub import Source
from export.commands.common import (
    BUILDS,
    BuildArgument,
    CheckpointOption,
    DeviceOption,
    LoraOption,
    OutOption,
    device_for,
    exit_with_sentence,
    plain_console,
)
from export.errors import Exit, MissingPackage
from export.verify.candidate import Candidate
from export.verify.comparison import Stage
from export.verify.golden import compare_golden, has_golden, read_golden, room_for
from export.verify.original import Original
from export.verify.provenance import check_origin
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest, find_build
from glmserve.engine.runtime.device import DeviceName
from glmserve.model.config import Checkpoint


@exit_with_sentence
def verify(
    build: BuildArgument,
    checkpoint: CheckpointOption,
    out: OutOption = BUILDS,
    lora: LoraOption = None,
    samples: Annotated[int, typer.Option(min=1, help="How many greedy answers to compare, token by token.")] = 8,
    valid_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until the certificate expires. Default: never.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Compare every stage of a build with transformers, and write its certificate, as JSON and as an HTML page.

    The checkpoint must be the one that the build was made from. Without torch and transformers, the build is compared
    with the logits that were recorded beside the checkpoint, if there are any.
    """
    console = plain_console()
    folder = find_build(out, build)
    manifest = Manifest.read(folder)
    manifest.check(folder)
    check_writable(folder)
    source = Source.of(checkpoint)
    adapters = [Source.of(adapter, "adapter") for adapter in lora or []]
    original = Original.open(source.folder, adapters)
    check_origin(folder, manifest, original)
    against, mode, stages = _comparison(folder, original, samples, device_for(manifest, device), console)
    if not write_certificate(folder, manifest, stages, against, console, valid_days, mode):
        raise typer.Exit(Exit.PARITY_FAILED)


def _comparison(
    build: Path, original: Original, samples: int, device: DeviceName, console: Console
) -> tuple[str, str, Iterator[Stage]]:
    """What the build is compared with, how it is run, and the comparison; raises MissingPackage when there is
    nothing."""
    try:
        from export.verify.against_transformers import compare_with_transformers
        from export.verify.layerwise import must_stream
    except ImportError:
        if original.adapters or not has_golden(original.folder):
            raise MissingPackage(
                "verify compares with transformers: pip install -r requirements/test.txt, or record golden logits "
                "beside the checkpoint."
            ) from None
        console.print("torch or transformers is not installed: comparing with the recorded logits.")
        cases = read_golden(original.folder)
        context = room_for(cases, Checkpoint.read(build / CHECKPOINT_FOLDER))
        return GOLDEN, WHOLE, compare_golden(Candidate(build, 1, context, device), cases)
    mode = LAYER_BY_LAYER if must_stream(original.folder) else WHOLE
    return TRANSFORMERS, mode, compare_with_transformers(build, original, samples, device, console)
