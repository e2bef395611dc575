"""A cache of image features: the least recently used is dropped first."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from glmserve.engine import metrics
from glmserve.engine.metrics import Meter
from glmserve.model.image_processor import Grid


def image_key(patches: np.ndarray, grid: Grid, scope: int) -> bytes:
    """A digest of an image as the model sees it (its frames' patches, and grid) and of the scope that may share it."""
    digest = hashlib.sha256(f"{scope} {grid.rows} {grid.columns} {patches.shape} {patches.dtype}|".encode())
    digest.update(np.ascontiguousarray(patches).data)
    return digest.digest()


class FeatureCache:
    """Safe to share between threads. Features that are not finite are not kept."""

    def __init__(self, max_bytes: int, meter: Meter) -> None:
        self._max_bytes = max_bytes
        self._meter = meter
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> np.ndarray | None:
        """The features f32 [image tokens, hidden] of an image that was kept, now the last to be dropped."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def keep(self, key: bytes, features: np.ndarray) -> None:
        """Keeps an image's features f32 [image tokens, hidden] as long as there is room."""
        if features.nbytes > self._max_bytes or not np.isfinite(features.sum()):
            return
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._bytes -= 0 if replaced is None else replaced.nbytes
            self._kept[key] = features
            self._bytes += features.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._meter.set(metrics.IMAGE_CACHE_BYTES, self._bytes)
