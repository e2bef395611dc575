"""TensorRT for RTX on this machine: its Python module, and the GPUs that it builds for."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from export.errors import MissingTensorRt
from glmserve.errors import BadArtifact

LIBRARY = "tensorrt-rtx"
_PACKAGE = "tensorrt-rtx-cu13-libs"
_REMEDY = "TensorRT for RTX is missing: .venv/bin/pip install --no-deps -r requirements/rtx.txt"
COMPUTE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""Of the GPUs that run such engines: A100, RTX 30xx, RTX 40xx, RTX 50xx and GB10. The portable form runs on all."""


def load_tensorrt_rtx() -> Any:
    """TensorRT for RTX's own Python module; raises MissingTensorRt."""
    try:
        return importlib.import_module("tensorrt_rtx_bindings")
    except ImportError:
        raise MissingTensorRt(_REMEDY) from None


def library_version() -> str:
    """Of TensorRT for RTX, without loading it; raises MissingTensorRt."""
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        raise MissingTensorRt(_REMEDY) from None


def compute_capabilities(text: str) -> tuple[str, ...]:
    """What `--compute-capability` lists, such as `8.6,8.9`; () for `portable`. Raises BadArtifact."""
    if text == "portable":
        return ()
    listed = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for part in listed:
        if part not in COMPUTE_CAPABILITIES:
            raise BadArtifact(
                f"--compute-capability {part}: TensorRT for RTX builds for {', '.join(COMPUTE_CAPABILITIES)}, several "
                "of them with commas between, or portable for all. Other GPUs take --target cuda."
            )
    return listed
