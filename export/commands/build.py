"""`build`: writes a checkpoint's build."""

from __future__ import annotations

import typer
from rich.console import Console

from export.build import build as make_build
from export.commands.common import (
    BUILDS,
    CheckpointOption,
    KvOption,
    OutOption,
    PrecisionOption,
    TargetOption,
    VisionBackendOption,
    speaks,
)
from export.failures import Exit
from export.hub import Source
from export.precision import KvPrecision, Precision, Target
from export.vision_backend import VisionBackend
from glmserve.certificate import Certificate
from glmserve.errors import NotCertified
from glmserve.manifest import Manifest


@speaks
def build(
    checkpoint: CheckpointOption,
    out: OutOption = BUILDS,
    precision: PrecisionOption = Precision.FP32,
    target: TargetOption = Target.CPU,
    vision_backend: VisionBackendOption = VisionBackend.PYTHON,
    kv: KvOption = KvPrecision.SAME,
) -> None:
    """Write the checkpoint's build; its folder is the last line printed.

    An existing build is found, not made again; one that was interrupted goes on where it stopped.
    """
    source = Source.of(checkpoint)
    path = make_build(source.folder, out, Console(stderr=True), precision, target, vision_backend, source.name, kv)
    typer.echo(str(path))
    try:
        Certificate.find(path, Manifest.read(path))
    except NotCertified as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(Exit.PARITY_FAILED) from None
