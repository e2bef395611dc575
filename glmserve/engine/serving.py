"""Puts the engine together from a build's folder: what the Triton adapter opens and closes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from glmserve.checkpoint import Checkpoint
from glmserve.engine.engine import Engine
from glmserve.engine.intake import EncodePicture, Intake, Tensors
from glmserve.engine.metrics import Metric, MetricsPublisher
from glmserve.engine.ort import OrtDecoder, OrtVision
from glmserve.engine.request import Event
from glmserve.engine.settings import EngineSettings
from glmserve.manifest import CHECKPOINT_FOLDER, DECODER_GRAPH, VISION_GRAPH, Manifest


class Serving:
    """A running engine with its intake."""

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._engine = engine
        self._intake = intake
        self.accept: Callable[[Tensors, Callable[[Event], None], Callable[[], bool]], None] = intake.accept

    @staticmethod
    def open(folder: Path, encode: EncodePicture, publish: Callable[[Metric, float], None]) -> Serving:
        """Opens the model version `folder` of a build; raises BadArtifact when the build must not be served.

        `encode` reads one picture; `publish` takes metric updates on the engine's thread.
        """
        checkpoint = open_checkpoint(folder)
        settings = EngineSettings()
        context = min(settings.context_tokens, checkpoint.text.max_positions)
        session = OrtDecoder(folder / DECODER_GRAPH, checkpoint, settings.slots, context, settings.threads)
        engine = Engine(
            session, checkpoint.eos_token_ids, settings.chunk_tokens, settings.max_waiting, MetricsPublisher(publish)
        )
        engine.start()
        return Serving(engine, Intake(checkpoint, engine, encode, settings.picture_readers, settings.max_waiting))

    def close(self) -> None:
        self._intake.close()
        self._engine.stop()


def open_vision(folder: Path) -> OrtVision:
    """The picture encoder in the model version `folder` of a build."""
    open_checkpoint(folder)
    return OrtVision(folder / VISION_GRAPH, EngineSettings().vision_threads)


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint facts of the build that holds the model version `folder`, its contract version checked."""
    build = folder.parents[2]
    Manifest.read(build)
    return Checkpoint.read(build / CHECKPOINT_FOLDER)
