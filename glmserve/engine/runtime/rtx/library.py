"""TensorRT for RTX in this process, and whether a build's engines can run on this machine's GPU."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from glmserve.build.rtx_engines import RtxEngines
from glmserve.errors import BadArtifact

_log = logging.getLogger(__name__)
_KNOWN = ("8.0", "8.6", "8.9", "12.0", "12.1")


def open_library(engines: RtxEngines) -> Any:
    """The library's Python module; raises BadArtifact when it is missing, or of another version than the engines'."""
    try:
        trt = importlib.import_module("tensorrt_rtx_bindings")
    except ImportError:
        raise BadArtifact("TensorRT for RTX is missing: pip install --no-deps -r requirements/rtx.txt") from None
    if trt.__version__ != engines.version:
        raise BadArtifact(
            f"The build's engines are of TensorRT for RTX {engines.version}, and {trt.__version__} is installed: "
            f"install tensorrt-rtx-cu13-libs=={engines.version} with its bindings, or export the checkpoint again."
        )
    return trt


def check_gpu(engines: RtxEngines, compute_capability: str) -> None:
    """Raises BadArtifact, with the remedy, when the engines are for other GPUs than one of `compute_capability`."""
    wanted = engines.compute_capabilities or list(_KNOWN)
    if compute_capability in wanted:
        return
    if compute_capability in _KNOWN:
        remedy = f"export the checkpoint with --target rtx --compute-capability {compute_capability}"
    else:
        remedy = "serve with GLM_ENGINE_RUNTIME=ort"
    raise BadArtifact(
        f"This GPU is of compute capability {compute_capability}, and the build's engines of TensorRT for RTX are for "
        f"{', '.join(wanted)}: {remedy}."
    )


def logger_for(trt: Any) -> Any:
    """TensorRT's messages in this process's log, from warnings on."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                _log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _log.warning("TensorRT: %s", message)

    return Logger()
