"""What a build's calibration is to be: on which prompts, and how many bits it may spend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.calibrate.budget import FEWEST, MOST
from export.calibrate.prompts import CalibrationSet
from export.precision import Precision, Target
from glmserve.errors import BadArtifact


@dataclass(frozen=True)
class CalibrationOrder:
    """`bits` is how many a code of the decoder's layers may have on average, the head apart."""

    prompts: CalibrationSet
    bits: float

    @staticmethod
    def of(
        is_asked: bool, prompts: Path | None, bits: float | None, precision: Precision | None, target: Target
    ) -> CalibrationOrder | None:
        """What the options ask for; prompts or bits ask for a calibration too. Raises BadArtifact where it is of no
        use, and for prompts that cannot be read."""
        if not is_asked and prompts is None and bits is None:
            return None
        if precision is not Precision.INT4:
            raise BadArtifact(
                f"--calibrate, --prompts and --bits choose how layers are rounded to 4 bits: add --precision int4, or "
                f"leave them out for {precision or 'auto'}, which loses too little for it to matter."
            )
        if target is Target.RTX:
            raise BadArtifact("Calibrated weights have no engines of TensorRT for RTX yet: take --target cuda or cpu.")
        bits = FEWEST if bits is None else bits
        if not FEWEST <= bits <= MOST:
            raise BadArtifact(f"--bits is {bits}, and must be from {FEWEST} to {MOST}.")
        return CalibrationOrder(
            CalibrationSet.drawn() if prompts is None else CalibrationSet.read(prompts), float(bits)
        )

    @property
    def said(self) -> str:
        """What a manifest says of it."""
        return f"calibrated, {self.bits:g} bits, {len(self.prompts.prompts)} prompts {self.prompts.digest[:8]}".rstrip()
