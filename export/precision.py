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


class PrecisionChoice(StrEnum):
    """What may be asked for: a precision, or the one that a checkpoint is published in."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def precision(self) -> Precision | None:
        """None for the one that the checkpoint is published in."""
        return None if self is PrecisionChoice.AUTO else Precision(self.value)


class Target(StrEnum):
    """Where a build is to run; the name in the manifest."""

    CPU = "cpu"
    CUDA = "cuda"
    RTX = "rtx"


class KvPrecision(StrEnum):
    """How a build keeps KV; the name in the manifest."""

    SAME = "same"
    INT8 = "int8"


@dataclass(frozen=True)
class Numbers:
    """`real` is the type of activations and weights; `bits`, where set, is what linear layers are rounded to,
    `rounds_kv` whether KV is to 8 bits, `on_cuda` whether operators are chosen for a GPU, and `fuses` whether they are
    chosen so that ONNX Runtime launches few kernels on it. `in_8_bits` names weights that are rounded no further.
    Layers that a checkpoint is published with in codes of `kept_bits` keep those codes."""

    real: ir.DataType = ir.DataType.FLOAT
    bits: int | None = None
    rounds_kv: bool = False
    on_cuda: bool = False
    fuses: bool = False
    in_8_bits: frozenset[str] = frozenset()
    kept_bits: tuple[int, ...] = ()

    @property
    def kv(self) -> ir.DataType:
        """The type of KV."""
        return ir.DataType.INT8 if self.rounds_kv else self.real

    @property
    def multiplies_bytes(self) -> bool:
        """Layers in 8 bits on a processor: bytes times bytes, which its VNNI and AMX do many times faster than fp32."""
        return self.bits == 8 and self.real == ir.DataType.FLOAT

    @property
    def gentle(self) -> Numbers:
        """No weight below 8 bits: for the image encoder, and for the head, where rounding costs most."""
        return self if self.bits is None else replace(self, bits=8)


FP32 = Numbers()
_HALF_BYTE = 4
_KEPT = {Precision.INT8: (8,), Precision.INT4: (4, 8)}
"""Bits of the codes that layers keep if a checkpoint is published with them."""


def numbers_of(precision: Precision, target: Target, kv: KvPrecision = KvPrecision.SAME) -> Numbers:
    """What a build's graphs compute in. Raises BadArtifact for a pair that nothing can run."""
    if target is Target.RTX:
        _check_rtx(precision, kv)
    numbers = _numbers_of(precision, target)
    on_cuda, fuses = target is not Target.CPU, target is Target.CUDA
    kept = () if target is Target.RTX else _KEPT.get(precision, ())
    return replace(numbers, rounds_kv=kv is KvPrecision.INT8, on_cuda=on_cuda, fuses=fuses, kept_bits=kept)


def numbers_as_published(bits: int, target: Target, kv: KvPrecision) -> tuple[Precision, Numbers]:
    """The precision of a checkpoint that is published in codes of so many bits, and what its build computes in: every
    layer keeps the codes that it has, and what has none is not rounded. TensorRT for RTX takes codes in its own form
    only. Raises BadArtifact for KV that nothing can run."""
    precision = Precision.INT4 if bits <= _HALF_BYTE else Precision.INT8
    numbers = numbers_of(precision, target, kv)
    return precision, numbers if target is Target.RTX else replace(numbers, bits=None, kept_bits=_KEPT[Precision.INT4])


def _check_rtx(precision: Precision, kv: KvPrecision) -> None:
    """Raises BadArtifact for what TensorRT for RTX has no kernels for."""
    if precision is Precision.FP32:
        raise BadArtifact(
            "fp32 has no engines of TensorRT for RTX, it has no fused attention in fp32: add --precision bf16, fp16, "
            "int8 or int4."
        )
    if kv is KvPrecision.INT8:
        raise BadArtifact("KV in int8 has no engines of TensorRT for RTX: leave --kv at same for it.")


def _numbers_of(precision: Precision, target: Target) -> Numbers:
    match precision:
        case Precision.FP32 if target is Target.CUDA:
            raise BadArtifact("fp32 runs on the CPU only: for --target cuda add --precision bf16, fp16, int8 or int4.")
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
