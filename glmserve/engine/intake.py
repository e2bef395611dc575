"""Takes requests in: a place in the line at once, then pictures, prompt and grammar made ready on a few threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from glmserve import contract
from glmserve.checkpoint import Checkpoint
from glmserve.engine import wire
from glmserve.engine.engine import Engine
from glmserve.engine.grammar import GrammarCompiler
from glmserve.engine.line import Place
from glmserve.engine.pictures import PictureCache, picture_key
from glmserve.engine.request import Event, Failed, Prompt, Request
from glmserve.engine.wire import Asked, Tensors
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError
from glmserve.images import Grid
from glmserve.position_table import VisionArrays, vision_arrays
from glmserve.positions import mrope_positions

_log = logging.getLogger(__name__)
_KEY_BITS = 62

EncodePicture = Callable[[VisionArrays], np.ndarray]
"""One picture's arrays -> features f32 [image tokens, hidden]."""


class Intake:
    """Accepts requests on any thread; the engine's line bounds how many are here."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: Engine,
        encode: EncodePicture,
        pictures: PictureCache,
        grammars: GrammarCompiler,
        readers: int,
        share_caches: bool = False,
    ) -> None:
        self._checkpoint = checkpoint
        self._engine = engine
        self._encode = encode
        self._pictures = pictures
        self._grammars = grammars
        self._share_caches = share_caches
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="intake")

    def accept(self, tensors: Tensors, emit: Callable[[Event], None], is_cancelled: Callable[[], bool]) -> None:
        """Starts a request named by `contract.DECODER_INPUTS`; whatever goes wrong becomes its `Failed` event."""
        arrived = time.monotonic()
        try:
            place = self._engine.enter(len(tensors[contract.INPUT_IDS.name]))
        except GlmServeError as error:
            emit(Failed(error))
            return
        try:
            self._pool.submit(self._prepare, tensors, emit, is_cancelled, arrived, place)
        except RuntimeError:  # the pool is shut down
            place.leave()
            emit(Failed(BackendDown("The engine is stopping.")))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=False)  # each ends soon: the engine refuses or the encoder fails

    def _prepare(
        self,
        tensors: Tensors,
        emit: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
        arrived: float,
        place: Place,
    ) -> None:
        try:
            asked = wire.read(tensors, self._checkpoint)
            if is_cancelled():
                raise Cancelled("The client went away.")
            if time.monotonic() >= arrived + asked.deadline_s:
                raise DeadlineExceeded("The request's time ran out before its pictures were read.")
            request = self._request(asked, emit, is_cancelled, arrived)
            self._engine.submit(request, place)
        except GlmServeError as error:
            place.leave()
            emit(Failed(error))
        except Exception:  # a request's outer edge: the client gets our words, never a library's
            _log.exception("a request could not be prepared")
            place.leave()
            emit(Failed(GlmServeError()))

    def _request(
        self, asked: Asked, emit: Callable[[Event], None], is_cancelled: Callable[[], bool], arrived: float
    ) -> Request:
        grammar = self._grammars.compile(asked.grammar) if asked.grammar else None
        began = time.monotonic()
        side, scope = self._checkpoint.vision.table_side, 0 if self._share_caches else asked.scope
        keys = [picture_key(patches, grid, scope) for patches, grid in asked.pictures]
        features = [
            self._pictures.features(key, lambda p=patches, g=grid: self._encode(vision_arrays(p, g, side)))  # type: ignore[misc]
            for key, (patches, grid) in zip(keys, asked.pictures, strict=True)
        ]
        grids = [grid for _, grid in asked.pictures]
        return Request(
            prompt=prompt_arrays(self._checkpoint, asked.input_ids, grids, features, keys),
            sampling=asked.sampling,
            max_tokens=asked.max_tokens,
            deadline=arrived + asked.deadline_s,
            emit=emit,
            is_cancelled=is_cancelled,
            stop_ids=asked.stop_ids,
            logprobs=asked.logprobs,
            grammar=grammar,
            scope=scope,
            vision_s=time.monotonic() - began,
            arrived=arrived,
        )


def prompt_arrays(
    checkpoint: Checkpoint,
    input_ids: np.ndarray,
    grids: list[Grid],
    features: list[np.ndarray],
    picture_keys: list[bytes],
) -> Prompt:
    """A prompt i64 [tokens] and its pictures' features f32 [image tokens, hidden] as the decoder takes them."""
    positions, delta = mrope_positions(input_ids, checkpoint.image_token_id, grids, checkpoint.vision.merge_size)
    is_picture = input_ids == checkpoint.image_token_id
    keys = input_ids.copy()
    keys[is_picture] = _picture_token_keys(picture_keys, [len(part) for part in features])
    return Prompt(
        input_ids=input_ids,
        positions=positions,
        delta=delta,
        features=features,
        image_slot=np.where(is_picture, np.cumsum(is_picture), 0),
        keys=keys,
    )


def _picture_token_keys(picture_keys: list[bytes], counts: list[int]) -> np.ndarray:
    """Below 0, where no token id lies; picture and place in it decide."""
    parts = [np.empty(0, np.int64)]
    for key, count in zip(picture_keys, counts, strict=True):
        first = int.from_bytes(key[:8], "little") >> (64 - _KEY_BITS)
        parts.append(-1 - (first + np.arange(count)) % (1 << _KEY_BITS))
    return np.concatenate(parts)
