"""Takes a request's tensors off the wire, has its pictures encoded, and hands it to the engine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from glmserve import contract
from glmserve.checkpoint import Checkpoint
from glmserve.engine.engine import Engine
from glmserve.engine.request import Done, Event, Failed, Prompt, Request, Sampling
from glmserve.errors import GlmServeError, InvalidInput, Overloaded
from glmserve.images import Grid
from glmserve.limits import MAX_IMAGES, MAX_NEW_TOKENS
from glmserve.position_table import VisionArrays, vision_arrays
from glmserve.positions import mrope_positions

_log = logging.getLogger(__name__)

Tensors = dict[str, np.ndarray]
EncodePicture = Callable[[VisionArrays], np.ndarray]
"""One picture's arrays -> features f32 [image tokens, hidden]."""


class Intake:
    """Accepts requests on any thread; pictures are encoded on a few threads of its own, with a bounded line."""

    def __init__(
        self, checkpoint: Checkpoint, engine: Engine, encode: EncodePicture, readers: int, max_waiting: int
    ) -> None:
        self._checkpoint = checkpoint
        self._engine = engine
        self._encode = encode
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="pictures")
        self._places = threading.BoundedSemaphore(readers + max_waiting)

    def accept(self, tensors: Tensors, emit: Callable[[Event], None], is_cancelled: Callable[[], bool]) -> None:
        """Starts a request named by `contract.DECODER_INPUTS`; whatever goes wrong becomes its `Failed` event."""
        arrived = time.monotonic()
        if not self._places.acquire(blocking=False):
            emit(Failed(Overloaded("Too many pictures are waiting to be read; try again shortly.")))
            return
        try:
            self._pool.submit(self._prepare, tensors, emit, is_cancelled, arrived)
        except RuntimeError:  # the pool is shut down
            self._places.release()
            emit(Failed(Overloaded("The engine is stopping.")))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(
        self, tensors: Tensors, emit: Callable[[Event], None], is_cancelled: Callable[[], bool], arrived: float
    ) -> None:
        try:
            request = self._read(tensors, emit, is_cancelled, arrived)
            self._engine.submit(request)
        except GlmServeError as error:
            emit(Failed(error))
        except Exception:  # a request's outer edge: the client gets our words, never a library's
            _log.exception("a request could not be prepared")
            emit(Failed(GlmServeError()))
        finally:
            self._places.release()

    def _read(
        self, tensors: Tensors, emit: Callable[[Event], None], is_cancelled: Callable[[], bool], arrived: float
    ) -> Request:
        input_ids = tensors[contract.INPUT_IDS.name]
        vocabulary = self._checkpoint.text.vocabulary
        if len(input_ids) == 0 or int(input_ids.min()) < 0 or int(input_ids.max()) >= vocabulary:
            raise InvalidInput(f"Token ids must lie between 0 and {vocabulary - 1}, and there must be one.", "prompt")
        max_tokens = int(tensors[contract.MAX_TOKENS.name][0])
        if not 1 <= max_tokens <= MAX_NEW_TOKENS:
            raise InvalidInput(f"max_tokens must lie between 1 and {MAX_NEW_TOKENS}.", "max_tokens")
        began = time.monotonic()
        prompt = self._prompt(input_ids, tensors)
        return Request(
            prompt=prompt,
            sampling=Sampling(
                temperature=float(tensors[contract.TEMPERATURE.name][0]),
                top_p=float(tensors[contract.TOP_P.name][0]),
                top_k=int(tensors[contract.TOP_K.name][0]),
                seed=int(tensors[contract.SEED.name][0]),
            ),
            max_tokens=max_tokens,
            deadline=arrived + int(tensors[contract.DEADLINE_MS.name][0]) / 1000,
            emit=emit,
            is_cancelled=is_cancelled,
            vision_s=time.monotonic() - began,
        )

    def _prompt(self, input_ids: np.ndarray, tensors: Tensors) -> Prompt:
        pictures = split_pictures(tensors, self._checkpoint)
        side = self._checkpoint.vision.table_side
        features = [self._encode(vision_arrays(patches, grid, side)) for patches, grid in pictures]
        return prompt_arrays(self._checkpoint, input_ids, [grid for _, grid in pictures], features)


def split_pictures(tensors: Tensors, checkpoint: Checkpoint) -> list[tuple[np.ndarray, Grid]]:
    """The pictures of a request: patches and grid of each. Raises InvalidInput when the two tensors disagree."""
    merge, images = checkpoint.images.merge_size, checkpoint.images
    rows = tensors.get(contract.GRIDS.name)
    if rows is None or len(rows) == 0:
        return []
    grids = [Grid(int(down), int(across)) for down, across in rows]
    if len(grids) > MAX_IMAGES:
        raise InvalidInput(f"A request may hold at most {MAX_IMAGES} pictures.", "image")
    if any(g.rows < merge or g.columns < merge or g.rows % merge or g.columns % merge for g in grids):
        raise InvalidInput(f"Picture grids must be positive multiples of {merge}.", "image")
    patches = tensors.get(contract.PATCHES.name)
    wanted = sum(grid.patches for grid in grids), images.patch_bytes
    if patches is None or patches.shape != wanted:
        raise InvalidInput(f"The pictures' grids ask for patches of shape {list(wanted)}.", "image")
    if any(images.temporal_patch_size * g.patches * images.patch_size**2 > images.max_pixels for g in grids):
        raise InvalidInput("A picture has more patches than the model reads.", "image")
    ends = np.cumsum([grid.patches for grid in grids])
    return list(zip(np.split(patches, ends[:-1]), grids, strict=True))


def prompt_arrays(
    checkpoint: Checkpoint, input_ids: np.ndarray, grids: list[Grid], features: list[np.ndarray]
) -> Prompt:
    """A prompt i64 [tokens] and its pictures' features f32 [image tokens, hidden] as the decoder takes them."""
    positions, delta = mrope_positions(input_ids, checkpoint.image_token_id, grids, checkpoint.vision.merge_size)
    is_picture = input_ids == checkpoint.image_token_id
    return Prompt(
        input_ids=input_ids,
        positions=positions,
        delta=delta,
        features=np.concatenate([np.zeros((1, checkpoint.text.hidden), np.float32), *features]),
        image_slot=np.where(is_picture, np.cumsum(is_picture), 0),
    )


def event_tensors(event: Event) -> Tensors:
    """An event that is not a failure as `contract.DECODER_OUTPUTS`."""
    assert not isinstance(event, Failed)
    if not isinstance(event, Done):
        return {contract.TOKENS.name: np.asarray(event.tokens, np.int32)}
    timings = event.timings
    seconds = (timings.queue_s, timings.vision_s, timings.prefill_s, timings.decode_s)
    return {
        contract.TOKENS.name: np.empty(0, np.int32),
        contract.FINISH.name: np.asarray([event.finish], np.int32),
        contract.TIMINGS_MS.name: np.asarray(seconds, np.float32) * 1000,
        contract.CACHED_TOKENS.name: np.asarray([0], np.int32),
    }
