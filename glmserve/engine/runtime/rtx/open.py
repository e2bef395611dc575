"""Opens a build's engines on this machine's GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmserve.build.rtx_engines import RTX_FOLDER, VISION_PLAN, RtxEngines
from glmserve.engine.runtime.memory import Memory
from glmserve.engine.runtime.rtx.decoder import RtxDecoder
from glmserve.engine.runtime.rtx.engine import PlanEngine
from glmserve.engine.runtime.rtx.kernel_cache import KernelCache
from glmserve.engine.runtime.rtx.library import check_gpu, logger_for, open_library
from glmserve.engine.runtime.rtx.stream import CudaStream, RtxGpu
from glmserve.engine.runtime.rtx.vision import RtxVision
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint

_FP16, _BF16 = 10, 16
_DEPTH = 4
"""Folders between a build's own and its plans: model_repository, glm4v, 1 and rtx."""


@dataclass(frozen=True)
class RtxRuntime:
    """The library and a GPU, for the engines in the folder of a build's model version."""

    folder: Path
    engines: RtxEngines
    gpu: RtxGpu
    cache: KernelCache
    trt: Any
    runtime: Any

    @staticmethod
    def open(version_folder: Path, number: int) -> RtxRuntime:
        """Raises BadArtifact, with the remedy, for a build without engines, for a library or a GPU that they are not
        for, and where there is no library, GPU or driver."""
        folder = version_folder / RTX_FOLDER
        engines = RtxEngines.read(folder)
        trt = open_library(engines)
        gpu = RtxGpu(number)
        capability = gpu.compute_capability()
        check_gpu(engines, capability)
        build = (folder / VISION_PLAN).resolve().parents[_DEPTH]  # what is served may be a folder of links to it
        cache = KernelCache.of(build, engines.version, capability)
        runtime = trt.Runtime(logger_for(trt))
        return RtxRuntime(folder, engines, gpu, cache, trt, runtime)

    @property
    def memory(self) -> Memory:
        return self.gpu

    @property
    def plan_bytes(self) -> int:
        """Bytes of all plans: what their weights take on the device, and a little more."""
        return sum(path.stat().st_size for path in self.folder.glob("*.plan"))

    def decoder(self, checkpoint: Checkpoint, precision: str, rows: int, buckets: tuple[int, ...]) -> RtxDecoder:
        """The decoder with so many rows of KV."""
        if not self.engines.decoder:
            raise BadArtifact("The build's list of engines names none of the decoder.")
        parts = [self._engine(name) for name in self.engines.decoder]
        stream = CudaStream(self.gpu)
        return RtxDecoder(parts, checkpoint, rows, kv_element(precision), stream, self.cache, buckets)

    def vision(self) -> RtxVision:
        return RtxVision(self._engine(VISION_PLAN), CudaStream(self.gpu))

    def _engine(self, name: str) -> PlanEngine:
        return PlanEngine(self.trt, self.runtime, self.folder / name, self.cache)


def kv_element(precision: str) -> int:
    """ONNX's number for the type of KV in a build's engines, which compute in bf16 where weights are rounded."""
    return _FP16 if precision == "fp16" else _BF16
