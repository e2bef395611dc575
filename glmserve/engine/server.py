"""Builds a running engine from a build's folder; the Triton model opens and closes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from glmserve import contract
from glmserve.build.certificate import Certificate
from glmserve.build.lock import hold
from glmserve.build.manifest import CHECKPOINT_FOLDER, DECODER_GRAPH, VISION_GRAPH, Manifest
from glmserve.contract import VISION_MAX_BATCH, VISION_MODEL, Finish
from glmserve.engine.engine import Engine
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.engine.memory_plan import decoders_files, element_bytes, memory_plan, most_patches, weight_bytes
from glmserve.engine.metrics import Meter, Metric, Publisher
from glmserve.engine.preprocessor import EncodeImage, Preprocessor
from glmserve.engine.request import Done, Timings
from glmserve.engine.runtime.decoder import DecoderSession
from glmserve.engine.runtime.device import Device, DeviceName, open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.settings import EngineSettings
from glmserve.engine.triton.cancellations import Cancellations
from glmserve.engine.triton.response_sender import ResponseSender, Send
from glmserve.engine.triton.tensors import Tensors, asks_for_whole, key_in
from glmserve.engine.vision.batch_encoder import BatchEncoder
from glmserve.engine.vision.feature_cache import FeatureCache
from glmserve.errors import BadArtifact, NotCertified
from glmserve.model.config import Checkpoint

_log = logging.getLogger(__name__)
_MIB = 1024**2


class EngineServer:
    """A running engine with its preprocessor, response sender and metrics, from `open` to `close`."""

    def __init__(
        self,
        engine: Engine,
        preprocessor: Preprocessor,
        response_sender: ResponseSender,
        grammars: GrammarCompiler,
        publisher: Publisher,
    ) -> None:
        self._engine = engine
        self._preprocessor = preprocessor
        self._response_sender = response_sender
        self._grammars = grammars
        self._publisher = publisher
        self._cancellations = Cancellations()
        self._held: BinaryIO | None = None

    @staticmethod
    def open(folder: Path, ask_triton: EncodeImage, publish: Callable[[Metric, float], None]) -> EngineServer:
        """Opens the model version `folder` of a build.

        `ask_triton` encodes an image where the repository has an encoder model; `publish` takes metric updates on a
        thread of its own. Raises BadSettings, BadArtifact when the build must not be served, DoesNotFit when the
        settings ask for more memory than there is.
        """
        settings = EngineSettings.read()
        manifest = Manifest.read(folder.parents[2])
        check_target(manifest, settings.device)
        held = hold(folder.parents[2])
        checkpoint = open_checkpoint(folder, settings)
        context = min(settings.context_tokens, checkpoint.text.max_positions)
        device = open_device(settings.device, settings.device_number)
        plan = memory_plan(
            checkpoint,
            settings,
            weight_bytes(_loaded(folder)),
            element_bytes(manifest.precision, manifest.target, manifest.kv),
            device.total_memory_bytes(),
        )
        plan.check()
        _log.info(plan.text)
        decoder = OrtDecoder(
            folder / DECODER_GRAPH,
            checkpoint,
            settings.slots + settings.warm_rows,
            context,
            settings.threads,
            device,
            settings.buckets if settings.cuda_graphs else (),
        )
        encode = ask_triton if _tritons_own(folder).is_dir() else _encoder(folder, checkpoint, settings, device)
        serving = EngineServer.around(
            decoder, checkpoint, settings, folder.parents[2] / CHECKPOINT_FOLDER, encode, publish
        )
        serving._held = held
        serving._grammars.start()
        return serving

    @staticmethod
    def around(
        session: DecoderSession,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        files: Path,
        encode: EncodeImage,
        publish: Callable[[Metric, float], None],
    ) -> EngineServer:
        """A running engine on `session`; the checkpoint's tokenizer lies in `files`."""
        meter = Meter()
        wait_queue = WaitQueue(settings.max_waiting, settings.max_waiting_tokens, slots=settings.slots)
        engine = Engine(
            session,
            checkpoint.eos_token_ids,
            settings.slots,
            settings.chunk_tokens,
            settings.least_chunk_tokens,
            settings.draft_tokens,
            wait_queue,
            meter,
        )
        grammars = GrammarCompiler(files / "tokenizer.json", checkpoint.text.vocabulary, checkpoint.eos_token_ids)
        images = FeatureCache(settings.image_cache_mib * _MIB, meter)
        preprocessor = Preprocessor(
            checkpoint, engine, encode, images, grammars, settings.image_readers, settings.share_caches
        )
        engine.start()
        return EngineServer(engine, preprocessor, ResponseSender(), grammars, Publisher(meter, publish))

    @property
    def is_healthy(self) -> bool:
        return self._engine.is_healthy

    def accept(self, tensors: Tensors, send: Send, is_cancelled: Callable[[], bool]) -> None:
        """Starts a request, or cancels one. One thread calls `send` with the request's events, in order."""
        cancellations, is_whole = self._cancellations, asks_for_whole(tensors)
        cancelled, key = key_in(tensors, contract.CANCEL), key_in(tensors, contract.CANCEL_KEY)
        if cancelled is not None:
            cancellations.cancel(cancelled)
            self._response_sender.channel(send, is_whole)(Done(Finish.STOP, Timings()))
        elif key is None:
            self._preprocessor.accept(tensors, self._response_sender.channel(send, is_whole), is_cancelled)
        else:
            emit = self._response_sender.channel(send, is_whole, lambda: cancellations.forget(key))
            self._preprocessor.accept(
                tensors,
                emit,
                lambda: cancellations.is_cancelled(key) or is_cancelled(),
                lambda leave: cancellations.add_callback(key, leave),
            )

    def close(self) -> None:
        """Fails the running requests, sends their last events, ends every thread, and unlocks the build."""
        self._engine.stop()
        self._preprocessor.close()
        self._response_sender.close()
        self._grammars.close()
        self._publisher.close()
        if self._held is not None:
            self._held.close()


def _tritons_own(folder: Path) -> Path:
    """The folder of the image encoder that one of Triton's own backends runs; it need not exist."""
    return folder.parents[1] / VISION_MODEL / folder.name


def _loaded(folder: Path) -> list[Path]:
    """The files of the decoder and of the image encoder, whichever process runs that."""
    of_triton = _tritons_own(folder)
    if not of_triton.is_dir():
        return list(folder.iterdir())
    return [*decoders_files(folder), *of_triton.iterdir()]


def _encoder(folder: Path, checkpoint: Checkpoint, settings: EngineSettings, device: Device) -> EncodeImage:
    """The image encoder in this process. A CPU gains nothing from batches, so there each image runs alone; on a GPU a
    batch takes no more memory than planned."""
    vision = OrtVision(folder / VISION_GRAPH, settings.vision_threads, device)
    most = 1 if device.name == "cpu" else VISION_MAX_BATCH
    return BatchEncoder(vision, most, most_patches(checkpoint, settings)).encode


def check_target(manifest: Manifest, device: DeviceName) -> None:
    """Raises BadArtifact for a build that was exported for another device than the settings choose."""
    if manifest.target != device:
        raise BadArtifact(
            f"Build {manifest.digest} was exported for {manifest.target}, and GLM_ENGINE_DEVICE is {device}: set "
            f"GLM_ENGINE_DEVICE={manifest.target}, or export the checkpoint with --target {device}."
        )


def open_checkpoint(folder: Path, settings: EngineSettings) -> Checkpoint:
    """The checkpoint facts of the build that holds the model version `folder`.

    Raises BadArtifact when the build is of another contract version, lacks a valid certificate that the settings ask
    for, or has an altered file.
    """
    build = folder.parents[2]
    manifest = Manifest.read(build)
    try:
        Certificate.demand(build, manifest)
    except NotCertified as error:
        if settings.require_certificate:
            raise
        _log.warning("NOBODY VOUCHES FOR THE ANSWERS OF THIS BUILD. %s", error.message)
    manifest.check(build)
    return Checkpoint.read(build / CHECKPOINT_FOLDER)
