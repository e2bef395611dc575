"""A picture's features are kept for each scope that shows it, as long as there is room."""

from __future__ import annotations

import numpy as np
import pytest

from glmserve.engine.metrics import IMAGE_CACHE_BYTES, Meter
from glmserve.engine.vision.encode_queue import FeatureCache, image_key
from glmserve.model.image_processor import Grid

FEATURES = np.ones((4, 8), np.float32)


def _patches(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 588), dtype=np.uint8)


def test_keys_tell_content_size_and_scope_apart() -> None:
    patches = _patches(1)
    other = patches.copy()
    other[-1, -1] ^= 1
    keys = {
        image_key(patches, Grid(4, 4), 0),
        image_key(patches, Grid(2, 8), 0),
        image_key(patches, Grid(4, 4), 1),
        image_key(other, Grid(4, 4), 0),
    }
    assert len(keys) == 4 and image_key(patches.copy(), Grid(4, 4), 0) in keys


def test_the_least_recently_used_are_forgotten() -> None:
    meter = Meter()
    cache = FeatureCache(2 * FEATURES.nbytes, meter)
    for key in (b"a", b"b"):
        cache.keep(key, FEATURES)
    assert cache.get(b"a") is FEATURES
    cache.keep(b"c", FEATURES)
    assert meter.totals[IMAGE_CACHE_BYTES] == 2 * FEATURES.nbytes
    assert cache.get(b"a") is FEATURES and cache.get(b"c") is FEATURES
    assert cache.get(b"b") is None


def test_what_is_kept_twice_takes_room_once() -> None:
    meter = Meter()
    cache = FeatureCache(2 * FEATURES.nbytes, meter)
    for _ in range(3):
        cache.keep(b"a", FEATURES)
    assert meter.totals[IMAGE_CACHE_BYTES] == FEATURES.nbytes and cache.get(b"a") is FEATURES


@pytest.mark.parametrize("bad", [np.full((4, 8), np.nan, np.float32), np.ones((4000, 8), np.float32)])
def test_what_is_not_finite_or_too_large_is_not_kept(bad: np.ndarray) -> None:
    cache = FeatureCache(1000, Meter())
    cache.keep(b"key", bad)
    assert cache.get(b"key") is None
