"""Builds a running engine from a build's folder; the Triton model opens and closes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from glmserve import contract
from glmserve.build.certificate import Certificate
from glmserve.build.lock import hold
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest
from glmserve.contract import VISION_MAX_BATCH, Finish
from glmserve.engine import metrics
from glmserve.engine.engine import Engine
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.engine.memory_plan import MemoryPlan, element_bytes, fitted, memory_plan, most_patches
from glmserve.engine.metrics import Meter, Metric, Publisher
from glmserve.engine.preprocessor import Preprocessor
from glmserve.engine.request import Done, Timings
from glmserve.engine.runtime.decoder import DecoderSession
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.sessions import on_device, open_runtime
from glmserve.engine.settings import DeviceChoice, EngineSettings
from glmserve.engine.triton.cancellations import Cancellations
from glmserve.engine.triton.open_call import OpenCall
from glmserve.engine.triton.response_sender import ResponseSender, Send
from glmserve.engine.triton.tensors import Tensors, asks_for_whole, keys_in
from glmserve.engine.vision.encode_queue import EncodeQueue, FeatureCache
from glmserve.engine.vision.sessions import EncodeImage, VisionSession, in_batches, one_by_one, patch_s
from glmserve.errors import BadArtifact, NotCertified
from glmserve.model.config import Checkpoint

_log = logging.getLogger(__name__)
_MIB = 1024**2
_FEWER_ROWS = (
    "Memory holds the KV of %d of %d slots and %d of %d warm rows. Set GLM_ENGINE_SLOTS and GLM_ENGINE_CONTEXT_TOKENS "
    "to trade their number for their length, set GLM_ENGINE_SHORT_TOKENS so that not every slot reserves the whole "
    "context, or export the checkpoint with --kv int8."
)
_NOT_SHORT = "GLM_ENGINE_SHORT_TOKENS=%d is ignored: a row of the whole context has %d tokens."


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
        manifest = Manifest.read(folder.parents[2])
        settings = on_device(EngineSettings.read(), manifest)
        check_target(manifest, settings.device)
        held = hold(folder.parents[2])
        checkpoint = open_checkpoint(folder, settings)
        opened = open_runtime(manifest, folder, settings)
        wanted = _with_useful_rows(checkpoint, opened.bounded(settings))
        size, memory = (
            element_bytes(manifest.precision, manifest.target, manifest.kv),
            opened.memory.total_memory_bytes(),
        )

        def plan_of(chosen: EngineSettings) -> MemoryPlan:
            return memory_plan(checkpoint, chosen, opened.weight_bytes, size, memory)

        settings = fitted(wanted, plan_of)
        if (settings.slots, settings.warm_rows) != (wanted.slots, wanted.warm_rows):
            _log.warning(_FEWER_ROWS, settings.slots, wanted.slots, settings.warm_rows, wanted.warm_rows)
        plan = plan_of(settings)
        plan.check()
        _log.info(plan.text)
        decoder, vision = opened.sessions(checkpoint, settings)
        encoder = ask_triton if vision is None else vision
        serving = EngineServer.around(
            decoder, checkpoint, settings, folder.parents[2] / CHECKPOINT_FOLDER, encoder, publish
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
        encoder: VisionSession | EncodeImage,
        publish: Callable[[Metric, float], None],
    ) -> EngineServer:
        """A running engine on `session`, with the encoder's graph in this process or a function that asks Triton's; the
        checkpoint's tokenizer lies in `files`."""
        meter = Meter()
        wait_queue = WaitQueue(
            settings.max_waiting,
            settings.max_waiting_tokens,
            slots=settings.slots,
            flood_wait=settings.flood_wait,
            long_rows=settings.rows - settings.short_rows,
        )
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
        images = _encode_queue(encoder, checkpoint, settings, meter)
        preprocessor = Preprocessor(checkpoint, engine, images, grammars, settings.image_readers, settings.share_caches)
        engine.start()
        if isinstance(encoder, VisionSession):
            meter.set(metrics.IMAGE_PATCH_S, patch_s(encoder, checkpoint))
        return EngineServer(engine, preprocessor, ResponseSender(), grammars, Publisher(meter, publish))

    @property
    def is_healthy(self) -> bool:
        return self._engine.is_healthy

    def accept(self, tensors: Tensors, send: Send, is_cancelled: Callable[[], bool]) -> None:
        """Starts a request, or cancels some. One thread calls `send` with the request's events, in order."""
        call = OpenCall(send, is_cancelled)
        cancellations, is_whole = self._cancellations, asks_for_whole(tensors)
        cancelled, keys = keys_in(tensors, contract.CANCEL), keys_in(tensors, contract.CANCEL_KEY)
        if cancelled:
            for key in cancelled:
                cancellations.cancel(key)
            self._response_sender.channel(call.send, is_whole)(Done(Finish.STOP, Timings()))
        elif not keys:
            self._preprocessor.accept(tensors, self._response_sender.channel(call.send, is_whole), call.is_cancelled)
        else:
            key = keys[0]
            emit = self._response_sender.channel(call.send, is_whole, lambda: cancellations.forget(key))
            self._preprocessor.accept(
                tensors,
                emit,
                lambda: cancellations.is_cancelled(key) or call.is_cancelled(),
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


def _with_useful_rows(checkpoint: Checkpoint, settings: EngineSettings) -> EngineSettings:
    """The settings without short rows where a row of the whole context would be no longer."""
    context = min(settings.context_tokens, checkpoint.text.max_positions)
    if settings.short_tokens < context:
        return settings
    _log.warning(_NOT_SHORT, settings.short_tokens, context)
    return settings.model_copy(update={"short_tokens": 0})


def _encode_queue(
    encoder: VisionSession | EncodeImage, checkpoint: Checkpoint, settings: EngineSettings, meter: Meter
) -> EncodeQueue:
    """The engine's own encoder runs one batch at a time; Triton gets several images at once, and batches them itself. A
    CPU gains nothing from batches, so there each image runs alone; on a GPU a batch takes no more memory than
    planned."""
    cache = FeatureCache(settings.image_cache_mib * _MIB, meter)
    if not isinstance(encoder, VisionSession):
        return EncodeQueue(one_by_one(encoder), cache, meter, workers=settings.image_readers)
    most = VISION_MAX_BATCH if settings.device == "cuda" else 1
    return EncodeQueue(in_batches(encoder), cache, meter, 1, most, most_patches(checkpoint, settings))


def check_target(manifest: Manifest, device: DeviceChoice) -> None:
    """Raises BadArtifact for a build that was exported for another device than the settings choose."""
    wanted = "cpu" if manifest.target == "cpu" else "cuda"
    if wanted != device:
        raise BadArtifact(
            f"Build {manifest.digest} was exported for {manifest.target}, and GLM_ENGINE_DEVICE is {device}: set "
            f"GLM_ENGINE_DEVICE={wanted}, or export the checkpoint with --target {device}."
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
