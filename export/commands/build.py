"""`build`: writes a checkpoint's build."""

from __future__ import annotations

import typer

from export.build.pipeline import build as make_build
from export.build.vision_backend import VisionBackend
from export.calibrate.order import CalibrationOrder
from export.checkpoint.hub import Source
from export.commands.common import (
    BUILDS,
    MB,
    BitsOption,
    BuildMemoryOption,
    CalibrateOption,
    CapabilityOption,
    CheckpointOption,
    EngineLengthOption,
    EngineSlotsOption,
    KvOption,
    LoraOption,
    OutOption,
    PrecisionOption,
    PromptsOption,
    TargetOption,
    VisionBackendOption,
    exit_with_sentence,
    order_of,
    plain_console,
)
from export.precision import KvPrecision, PrecisionChoice, Target
from export.rtx.order import DEFAULT_MEMORY_BYTES, DEFAULT_SIZES
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import Manifest


@exit_with_sentence
def build(
    checkpoint: CheckpointOption,
    out: OutOption = BUILDS,
    lora: LoraOption = None,
    calibrate: CalibrateOption = False,
    prompts: PromptsOption = None,
    bits: BitsOption = None,
    precision: PrecisionOption = PrecisionChoice.AUTO,
    target: TargetOption = Target.CPU,
    vision_backend: VisionBackendOption = VisionBackend.ENGINE,
    kv: KvOption = KvPrecision.SAME,
    compute_capability: CapabilityOption = "portable",
    slots: EngineSlotsOption = DEFAULT_SIZES.rows,
    length: EngineLengthOption = DEFAULT_SIZES.context,
    build_memory: BuildMemoryOption = DEFAULT_MEMORY_BYTES // MB,
) -> None:
    """Make the checkpoint's build. The last line printed is its folder.

    An existing build is found, not made again. An interrupted one continues where it stopped.
    """
    order = order_of(compute_capability, slots, length, build_memory)
    calibration = CalibrationOrder.of(calibrate, prompts, bits, precision.precision, target)
    source = Source.of(checkpoint)
    adapters = [Source.of(adapter, "adapter") for adapter in lora or []]
    console = plain_console(stderr=True)
    path = make_build(
        source.folder,
        out,
        console,
        precision.precision,
        target,
        vision_backend,
        source.name,
        kv,
        order,
        adapters,
        calibration,
    )
    typer.echo(str(path))
    Certificate.find(path, Manifest.read(path))  # raises if the comparison failed
