"""A cache of image features: each image is encoded once, and the least recently used is dropped first."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from glmserve.engine import metrics
from glmserve.engine.metrics import Meter
from glmserve.errors import Cancelled
from glmserve.model.image_processor import Grid

_WAIT_S = 120.0


def image_key(patches: np.ndarray, grid: Grid, scope: int) -> bytes:
    """A digest of an image as the model sees it (patches and grid) and of the scope that may share it."""
    digest = hashlib.sha256(f"{scope} {grid.rows} {grid.columns} {patches.shape} {patches.dtype}|".encode())
    digest.update(np.ascontiguousarray(patches).data)
    return digest.digest()


class FeatureCache:
    """Safe to share between threads; a request for an image that is being encoded waits for that result."""

    def __init__(self, max_bytes: int, meter: Meter) -> None:
        self._max_bytes = max_bytes
        self._meter = meter
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[bytes, Future[np.ndarray]] = {}

    def features(self, key: bytes, encode: Callable[[], np.ndarray]) -> np.ndarray:
        """The features f32 [image tokens, hidden] of an image; raises what `encode` raises."""
        with self._lock:
            kept, waiting = self._kept.get(key), self._under_way.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            elif waiting is None:
                self._under_way[key] = mine = Future[np.ndarray]()
        self._meter.add(metrics.IMAGE_MISSES if kept is None and waiting is None else metrics.IMAGE_HITS)
        if kept is not None:
            return kept
        if waiting is not None:
            return waiting.result(_WAIT_S)
        try:
            features = encode()
        except BaseException as error:
            mine.set_exception(error if isinstance(error, Exception) else Cancelled("Encoding the image was given up."))
            raise
        else:
            mine.set_result(features)
            self._keep(key, features)
            return features
        finally:
            with self._lock:
                del self._under_way[key]

    def _keep(self, key: bytes, features: np.ndarray) -> None:
        if features.nbytes > self._max_bytes or not np.isfinite(features.sum()):
            return
        with self._lock:
            self._kept[key] = features
            self._bytes += features.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._meter.set(metrics.IMAGE_CACHE_BYTES, self._bytes)
