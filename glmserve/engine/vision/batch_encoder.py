"""Encodes images for many threads in batches: the thread whose turn it is also takes images that wait."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays

_log = logging.getLogger(__name__)
_TURN_S = 120.0
"""An image waits at most this long for its turn."""


class VisionSession(Protocol):
    """Runs the image encoder's graph."""

    def run(self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B images of one grid; see `contract.VISION_INPUTS`."""
        ...


@dataclass(eq=False)
class _Waiting:
    """One image; `answer` is its features f32 [image tokens, hidden], or the error."""

    arrays: VisionArrays
    answer: np.ndarray | Exception | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [array.shape for array in self.arrays]


class BatchEncoder:
    """Runs a session for any thread, one batch at a time.

    All images of a batch have one grid; it has at most `most` images and `most_patches` patches, or one larger image.
    """

    def __init__(self, session: VisionSession, most: int, most_patches: int) -> None:
        self._session = session
        self._most = most
        self._most_patches = most_patches
        self._turn = threading.Lock()  # whoever holds it runs a batch
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    def encode(self, arrays: VisionArrays) -> np.ndarray:
        """Features f32 [image tokens, hidden] of one image; raises BackendDown when the graph fails or hangs."""
        mine = _Waiting(arrays)
        with self._lock:
            self._waiting.append(mine)
        if not self._turn.acquire(timeout=_TURN_S):
            with self._lock:
                self._waiting = [other for other in self._waiting if other is not mine]
            raise BackendDown("The image encoder did not answer in time.")
        try:
            if mine.answer is None:
                self._run(self._batch_with(mine))
        finally:
            self._turn.release()
        if isinstance(mine.answer, Exception):
            raise BackendDown("The image encoder failed.") from mine.answer
        assert mine.answer is not None
        return mine.answer

    def _batch_with(self, mine: _Waiting) -> list[_Waiting]:
        """Takes this image and those of its grid that have waited longest out of the queue."""
        room = max(1, min(self._most, self._most_patches // len(mine.arrays[0])))
        with self._lock:
            others = [other for other in self._waiting if other is not mine and other.shapes == mine.shapes]
            batch = [mine, *others[: room - 1]]
            self._waiting = [other for other in self._waiting if other not in batch]
        return batch

    def _run(self, batch: list[_Waiting]) -> None:
        columns = zip(*(waiting.arrays for waiting in batch), strict=True)
        try:
            features = self._session.run(*(_together(column) for column in columns))
        except Exception as error:  # onnxruntime raises its own unrelated classes
            _log.exception("a batch of %d images could not be encoded", len(batch))
            for waiting in batch:
                waiting.answer = error
            return
        for waiting, found in zip(batch, features, strict=True):
            waiting.answer = found if len(batch) == 1 else found.copy()  # which may outlive the others in a cache


def _together(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """All arrays as one batch; a single image is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
