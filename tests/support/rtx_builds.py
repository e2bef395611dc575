"""The demo's build with engines of TensorRT for RTX, where its packages are installed."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest
from shared_builds import build_of_demo

from export.build.vision_backend import VisionBackend
from export.precision import KvPrecision, Precision, Target
from export.rtx.order import EngineOrder
from export.rtx.profiles import EngineSizes

CAPABILITIES = ("8.6", "8.9", "12.0")
"""RTX 30xx, 40xx and 50xx."""
SIZES = EngineSizes(rows=8, context=256, chunk_tokens=64)
needs_tensorrt_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT for RTX is not installed: pip install --no-deps -r requirements/rtx.txt",
)


@cache
def rtx_build_of_demo(precision: Precision = Precision.BF16) -> Path:
    """The demo with engines for three generations of GPUs, in one part."""
    order = EngineOrder(CAPABILITIES, SIZES)
    return build_of_demo(precision, Target.RTX, VisionBackend.ENGINE, KvPrecision.SAME, order)
