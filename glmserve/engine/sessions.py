"""Opens a build's decoder and image encoder on the runtime that runs them: ONNX Runtime, or TensorRT for RTX."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from glmserve.build.manifest import DECODER_GRAPH, VISION_GRAPH, Manifest
from glmserve.contract import VISION_MODEL
from glmserve.engine.memory_plan import decoders_files, weight_bytes
from glmserve.engine.runtime.decoder import DecoderSession
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.memory import DeviceName, Memory
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.runtime.rtx.open import RtxRuntime
from glmserve.engine.settings import EngineSettings
from glmserve.engine.vision.niceness import made_nice
from glmserve.engine.vision.sessions import VisionSession
from glmserve.model.config import Checkpoint

_log = logging.getLogger(__name__)


class Opened(Protocol):
    """A runtime with a build's files on a device, before anything large is loaded."""

    memory: Memory
    weight_bytes: int

    def bounded(self, settings: EngineSettings) -> EngineSettings:
        """The settings with the sizes that are fixed in the build's files."""
        ...

    def sessions(self, checkpoint: Checkpoint, settings: EngineSettings) -> tuple[DecoderSession, VisionSession | None]:
        """The decoder, and the image encoder unless one of Triton's own backends runs it."""
        ...


def on_device(settings: EngineSettings, manifest: Manifest) -> EngineSettings:
    """The settings with a device: where none is chosen, the one that the build was exported for."""
    if settings.device != "auto":
        return settings
    device: DeviceName = "cpu" if manifest.target == "cpu" else "cuda"
    _log.info("GLM_ENGINE_DEVICE=auto: %s, for which build %s was exported.", device, manifest.digest)
    return settings.model_copy(update={"device": device})


def open_runtime(manifest: Manifest, folder: Path, settings: EngineSettings) -> Opened:
    """The runtime that the settings choose, or that the build is for."""
    chosen = settings.runtime
    if chosen == "auto":
        chosen = "rtx" if manifest.target == "rtx" else "ort"
    if chosen == "ort":
        return _OnOnnxRuntime(folder, settings)
    _log.info("The build's engines run on TensorRT for RTX: %s.", manifest.engines or "none")
    return _OnTensorRtRtx(manifest, folder, settings)


class _OnOnnxRuntime:
    """A build's graphs on ONNX Runtime."""

    def __init__(self, folder: Path, settings: EngineSettings) -> None:
        self._folder = folder
        assert settings.device != "auto"
        self._device = open_device(settings.device, settings.device_number)
        self.memory: Memory = self._device
        self.weight_bytes = weight_bytes(_loaded(folder))

    def bounded(self, settings: EngineSettings) -> EngineSettings:
        return settings

    def sessions(self, checkpoint: Checkpoint, settings: EngineSettings) -> tuple[DecoderSession, VisionSession | None]:
        decoder = OrtDecoder(
            self._folder / DECODER_GRAPH,
            checkpoint,
            settings.rows,
            min(settings.context_tokens, checkpoint.text.max_positions),
            settings.threads,
            self._device,
            settings.buckets if settings.cuda_graphs else (),
            short_rows=settings.short_rows,
            short_tokens=settings.short_tokens,
        )
        if _tritons_own(self._folder).is_dir():
            return decoder, None
        vision = made_nice(lambda: OrtVision(self._folder / VISION_GRAPH, settings.vision_threads, self._device))
        return decoder, vision


class _OnTensorRtRtx:
    """A build's engines on TensorRT for RTX."""

    def __init__(self, manifest: Manifest, folder: Path, settings: EngineSettings) -> None:
        self._runtime = RtxRuntime.open(folder, settings.device_number)
        self._precision = manifest.precision
        self.memory: Memory = self._runtime.memory
        self.weight_bytes = self._runtime.plan_bytes

    def bounded(self, settings: EngineSettings) -> EngineSettings:
        """A row of KV is as long as the engines were built for, and a chunk of prompt no longer. Where nobody chose how
        many slots there are, they are no more than the engines decode together."""
        engines = self._runtime.engines
        if settings.context_tokens != engines.context:
            _log.info("GLM_ENGINE_CONTEXT_TOKENS is %d here, as the engines were built.", engines.context)
        if settings.short_rows:
            _log.warning("GLM_ENGINE_SHORT_TOKENS is ignored: rows of KV are of one size, as the engines were built.")
        fixed = {
            "context_tokens": engines.context,
            "short_tokens": 0,
            "chunk_tokens": min(settings.chunk_tokens, engines.chunk_tokens),
            "min_chunk_tokens": min(settings.least_chunk_tokens, engines.chunk_tokens),
        }
        bounded = settings.model_copy(update=fixed)
        if "slots" in settings.model_fields_set or settings.slots <= engines.rows:
            return bounded
        _log.info("There are %d slots (%d by default), as the engines were built.", engines.rows, settings.slots)
        values = {**dict(bounded), "slots": engines.rows}
        return EngineSettings.model_construct(bounded.model_fields_set, **values)  # still nobody's choice

    def sessions(self, checkpoint: Checkpoint, settings: EngineSettings) -> tuple[DecoderSession, VisionSession | None]:
        buckets = settings.buckets if settings.cuda_graphs else ()
        decoder = self._runtime.decoder(checkpoint, self._precision, settings.rows, buckets)
        return decoder, self._runtime.vision()


def _tritons_own(folder: Path) -> Path:
    """The folder of the image encoder that one of Triton's own backends runs; it need not exist."""
    return folder.parents[1] / VISION_MODEL / folder.name


def _loaded(folder: Path) -> list[Path]:
    """The files of the decoder and of the image encoder, whichever process runs that."""
    of_triton = _tritons_own(folder)
    if not of_triton.is_dir():
        return list(folder.iterdir())
    return [*decoders_files(folder), *of_triton.iterdir()]
