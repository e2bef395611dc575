"""The precisions a build can have, and what a graph keeps its numbers in for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import onnx_ir as ir

from glmserve.errors import BadArtifact


class Precision(StrEnum):
    """How a build stores its linear layers; the name in the manifest."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class Target(StrEnum):
    """Where a build is to run; the name in the manifest."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Numbers:
    """`real` is the type of activations, KV and weights; `bits`, where set, is what linear layers are rounded to."""

    real: ir.DataType = ir.DataType.FLOAT
    bits: int | None = None

    @property
    def gentle(self) -> Numbers:
        """No weight below 8 bits: for the picture encoder, and for the head, where rounding costs most."""
        return self if self.bits is None else replace(self, bits=8)


FP32 = Numbers()


def numbers_of(precision: Precision, target: Target) -> Numbers:
    """What a build's graphs compute in. Raises BadArtifact for a pair that nothing can run."""
    match precision:
        case Precision.FP32:
            return FP32
        case Precision.FP16:
            return Numbers(ir.DataType.FLOAT16)
        case Precision.BF16 if target is Target.CPU:
            raise BadArtifact("bf16 runs on CUDA only: add --target cuda, or take fp32, fp16, int8 or int4.")
        case Precision.BF16:
            return Numbers(ir.DataType.BFLOAT16)
        case Precision.INT8 | Precision.INT4:
            real = ir.DataType.FLOAT if target is Target.CPU else ir.DataType.BFLOAT16
            return Numbers(real, bits=8 if precision is Precision.INT8 else 4)
