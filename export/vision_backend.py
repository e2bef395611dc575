"""The programs that can run the picture encoder inside Triton, and what each finds in the model repository."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from export.precision import KvPrecision, Precision, Target
from glmserve.checkpoint import Checkpoint
from glmserve.contract import render_vision_config
from glmserve.errors import BadArtifact


class VisionBackend(StrEnum):
    """Triton's backend for the `vision_encoder` model."""

    PYTHON = "python"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def check_backend(backend: VisionBackend, precision: Precision, kv: KvPrecision = KvPrecision.SAME) -> None:
    """Raises BadArtifact for precisions that the backend has no graph for."""
    if backend is VisionBackend.TENSORRT and precision in (Precision.INT8, Precision.INT4):
        raise BadArtifact(f"{precision} has no form that TensorRT parses: build fp32, fp16 or bf16 for it.")
    if backend is VisionBackend.TENSORRT and kv is KvPrecision.INT8:
        raise BadArtifact("KV in int8 has no form that TensorRT parses: leave --kv at same for it.")


def write_entry(backend: VisionBackend, model: Path, checkpoint: Checkpoint, target: Target) -> None:
    """Makes the Python entry in the model's folder that of a backend.

    TensorRT's engines are made on the machine that serves them: until then, and wherever none fits, its build is served
    by the Python entry.
    """
    if backend is VisionBackend.ONNXRUNTIME:
        (model / "1" / "model.py").unlink()
        config = render_vision_config(backend, target is Target.CUDA, fixed_sizes(checkpoint))
        (model / "config.pbtxt").write_text(config, "utf-8")


def fixed_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """The sizes that stand fixed in the picture encoder's graph, by their words in the contract."""
    return {
        "patch_bytes": checkpoint.images.patch_bytes,
        "table_side": checkpoint.vision.table_side,
        "hidden": checkpoint.vision.out_hidden,
    }
