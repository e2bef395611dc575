"""Who can run the image encoder: the engine, or one of Triton's own backends, and what that finds of it."""

from __future__ import annotations

from enum import StrEnum

from export.precision import KvPrecision, Precision, Target
from glmserve.contract import render_vision_config
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint


class VisionBackend(StrEnum):
    """The engine, or Triton's backend for a model `vision_encoder`."""

    ENGINE = "engine"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def check_backend(backend: VisionBackend, precision: Precision, kv: KvPrecision = KvPrecision.SAME) -> None:
    """Raises BadArtifact for precisions that the backend has no graph for."""
    if backend is VisionBackend.TENSORRT and precision in (Precision.INT8, Precision.INT4):
        raise BadArtifact(f"{precision} has no form that TensorRT parses: build fp32, fp16 or bf16 for it.")
    if backend is VisionBackend.TENSORRT and kv is KvPrecision.INT8:
        raise BadArtifact("KV in int8 has no form that TensorRT parses: leave --kv at same for it.")


def vision_config(backend: VisionBackend, checkpoint: Checkpoint, target: Target) -> str | None:
    """The `config.pbtxt` of the model `vision_encoder` in a build for a backend; None where it has no such model.

    TensorRT's engines are made on the machine that serves them: until then, and wherever none fits, the engine reads
    the images.
    """
    if backend is not VisionBackend.ONNXRUNTIME:
        return None
    return render_vision_config(backend, target is Target.CUDA, fixed_sizes(checkpoint))


def fixed_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """The sizes that stand fixed in the image encoder's graph, by their words in the contract."""
    return {
        "patch_bytes": checkpoint.images.patch_bytes,
        "table_side": checkpoint.vision.table_side,
        "hidden": checkpoint.vision.out_hidden,
    }
