"""Which GPUs and drivers the installed libraries can use; others are refused by name, with what to install."""

from __future__ import annotations

from glmserve.errors import BadArtifact

ORT_KERNELS = ("7.5", "8.0", "8.6", "8.9", "9.0", "12.0")
"""Compute capabilities that onnxruntime-gpu 1.31 holds kernels for. It holds no PTX that another GPU could compile."""
_DRIVERS = {12: "525", 13: "580"}
"""The first NVIDIA driver for Linux of each CUDA version."""


def check_driver(supported: int, needed: int) -> None:
    """Raises BadArtifact when the driver supports an older CUDA (13000 for 13.0, 0 without one) than the runtime is."""
    if supported // 1000 >= needed // 1000:
        return
    driver = _DRIVERS.get(needed // 1000, "the newest")
    found = f"supports CUDA {_text(supported)}" if supported else "is missing"
    raise BadArtifact(
        f"The NVIDIA driver {found}, and the CUDA runtime here is of version {_text(needed)}: install driver {driver} "
        "or newer. In a container it is the host's, which the NVIDIA Container Toolkit lends."
    )


def check_kernels(compute_capability: str, number: int) -> None:
    """Raises BadArtifact when onnxruntime-gpu has no kernels for such a GPU. A kernel runs on GPUs of its own major
    version whose minor version is not lower."""
    major, minor = map(int, compute_capability.split("."))
    held = [tuple(map(int, kernel.split("."))) for kernel in ORT_KERNELS]
    if any(own == major and least <= minor for own, least in held):
        return
    raise BadArtifact(
        f"GPU {number} is of compute capability {compute_capability}, and onnxruntime-gpu 1.31 has kernels for "
        f"{', '.join(ORT_KERNELS)} only: choose another GPU with GLM_ENGINE_DEVICE_NUMBER, install an onnxruntime-gpu "
        f"that was built for {compute_capability}, or serve on the processor with GLM_ENGINE_DEVICE=cpu."
    )


def _text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
