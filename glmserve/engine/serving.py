"""Puts the engine together from a build's folder: what the Triton adapter opens and closes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from glmserve import contract
from glmserve.certificate import Certificate
from glmserve.checkpoint import Checkpoint
from glmserve.contract import DECODER_MODEL, VISION_MODEL, Finish
from glmserve.engine.cancels import Cancels
from glmserve.engine.device import open_device
from glmserve.engine.engine import Engine
from glmserve.engine.grammar import GrammarCompiler
from glmserve.engine.intake import EncodePicture, Intake
from glmserve.engine.line import Line
from glmserve.engine.metrics import Meter, Metric, Publisher
from glmserve.engine.ort import OrtDecoder, OrtVision
from glmserve.engine.outbox import Outbox, Send
from glmserve.engine.pictures import PictureCache
from glmserve.engine.plan import element_bytes, memory_plan, weight_bytes
from glmserve.engine.request import Done, Event, Timings
from glmserve.engine.session import DecoderSession
from glmserve.engine.settings import EngineSettings
from glmserve.engine.wire import Tensors, asks_for_whole, key_in
from glmserve.errors import NotCertified
from glmserve.manifest import CHECKPOINT_FOLDER, DECODER_GRAPH, VISION_GRAPH, Manifest

_log = logging.getLogger(__name__)
_MIB = 1024**2


class Serving:
    """A running engine with everything around it, from `open` to `close`."""

    def __init__(
        self, engine: Engine, intake: Intake, outbox: Outbox, grammars: GrammarCompiler, publisher: Publisher
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._outbox = outbox
        self._grammars = grammars
        self._publisher = publisher
        self._cancels = Cancels()

    @staticmethod
    def open(folder: Path, encode: EncodePicture, publish: Callable[[Metric, float], None]) -> Serving:
        """Opens the model version `folder` of a build.

        `encode` reads one picture; `publish` takes metric updates on a thread of its own. Raises BadArtifact when the
        build must not be served, DoesNotFit when the settings ask for more memory than there is.
        """
        settings = EngineSettings()
        checkpoint = open_checkpoint(folder, DECODER_MODEL, settings)
        context = min(settings.context_tokens, checkpoint.text.max_positions)
        device = open_device(settings.device, settings.device_number)
        manifest = Manifest.read(folder.parents[2])
        plan = memory_plan(
            checkpoint,
            settings,
            weight_bytes(folder, folder.parents[1] / VISION_MODEL / folder.name),
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
        return Serving.around(decoder, checkpoint, settings, folder.parents[2] / CHECKPOINT_FOLDER, encode, publish)

    @staticmethod
    def around(
        session: DecoderSession,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        files: Path,
        encode: EncodePicture,
        publish: Callable[[Metric, float], None],
    ) -> Serving:
        """A running engine on `session`; the checkpoint's tokenizer lies in `files`."""
        meter = Meter()
        line = Line(settings.max_waiting, settings.max_waiting_tokens)
        engine = Engine(
            session,
            checkpoint.eos_token_ids,
            settings.slots,
            settings.chunk_tokens,
            settings.least_chunk_tokens,
            settings.draft_tokens,
            line,
            meter,
        )
        grammars = GrammarCompiler(files / "tokenizer.json", checkpoint.text.vocabulary, checkpoint.eos_token_ids)
        pictures = PictureCache(settings.picture_cache_mib * _MIB, meter)
        intake = Intake(checkpoint, engine, encode, pictures, grammars, settings.picture_readers, settings.share_caches)
        engine.start()
        return Serving(engine, intake, Outbox(), grammars, Publisher(meter, publish))

    @property
    def is_healthy(self) -> bool:
        return self._engine.is_healthy

    def accept(self, tensors: Tensors, send: Send, is_cancelled: Callable[[], bool]) -> None:
        """Starts a request, or cancels one; `send` is called on one thread with its events in order, the last of all at
        the end."""
        emit, cancels = self._outbox.channel(send, asks_for_whole(tensors)), self._cancels
        cancelled, key = key_in(tensors, contract.CANCEL), key_in(tensors, contract.CANCEL_KEY)
        if cancelled is not None:
            cancels.say(cancelled)
            emit(Done(Finish.STOP, Timings()))
        elif key is None:
            self._intake.accept(tensors, emit, is_cancelled)
        else:

            def emit_and_forget(event: Event) -> None:
                emit(event)
                if event.is_last:
                    cancels.forget(key)

            self._intake.accept(tensors, emit_and_forget, lambda: cancels.is_said(key) or is_cancelled())

    def close(self) -> None:
        """Ends what runs with an error, sends it, and ends every thread."""
        self._engine.stop()
        self._intake.close()
        self._outbox.close()
        self._grammars.close()
        self._publisher.close()


def open_vision(folder: Path) -> OrtVision:
    """The picture encoder in the model version `folder` of a build."""
    settings = EngineSettings()
    open_checkpoint(folder, VISION_MODEL, settings)
    device = open_device(settings.device, settings.device_number)
    return OrtVision(folder / VISION_GRAPH, settings.vision_threads, device)


def open_checkpoint(folder: Path, model: str, settings: EngineSettings) -> Checkpoint:
    """The checkpoint facts of the build that holds the model version `folder`.

    Raises BadArtifact when the build is of another contract version, lacks a valid certificate that the settings ask
    for, or has an altered file among those that `model` is served with.
    """
    build = folder.parents[2]
    manifest = Manifest.read(build)
    try:
        Certificate.demand(build, manifest)
    except NotCertified as error:
        if settings.require_certificate:
            raise
        _log.warning("NOBODY VOUCHES FOR THE ANSWERS OF THIS BUILD. %s", error.message)
    manifest.check(build, model)
    return Checkpoint.read(build / CHECKPOINT_FOLDER)
