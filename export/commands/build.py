"""`build`: writes a checkpoint's build."""

from __future__ import annotations

import typer

from export.build.pipeline import build as make_build
from export.build.vision_backend import VisionBackend
from export.checkpoint.hub import Source
from export.commands.common import (
    BUILDS,
    CheckpointOption,
    KvOption,
    OutOption,
    PrecisionOption,
    TargetOption,
    VisionBackendOption,
    exit_with_sentence,
    plain_console,
)
from export.precision import KvPrecision, Precision, Target
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import Manifest


@exit_with_sentence
def build(
    checkpoint: CheckpointOption,
    out: OutOption = BUILDS,
    precision: PrecisionOption = Precision.FP32,
    target: TargetOption = Target.CPU,
    vision_backend: VisionBackendOption = VisionBackend.ENGINE,
    kv: KvOption = KvPrecision.SAME,
) -> None:
    """Make the checkpoint's build. The last line printed is its folder.

    An existing build is found, not made again. An interrupted one continues where it stopped.
    """
    source = Source.of(checkpoint)
    path = make_build(
        source.folder, out, plain_console(stderr=True), precision, target, vision_backend, source.name, kv
    )
    typer.echo(str(path))
    Certificate.find(path, Manifest.read(path))  # raises if the comparison failed
