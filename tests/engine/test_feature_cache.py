"""A picture is encoded once for each scope that shows it, whoever asks at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glmserve.engine.metrics import IMAGE_CACHE_BYTES, IMAGE_HITS, IMAGE_MISSES, Meter
from glmserve.engine.vision.feature_cache import FeatureCache, image_key
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


def test_those_who_ask_at_once_share_one_encoding() -> None:
    meter, gate, calls = Meter(), threading.Event(), []
    cache = FeatureCache(10**6, meter)

    def encode() -> np.ndarray:
        calls.append(1)
        assert gate.wait(5)
        return FEATURES

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.features, b"key", encode) for _ in range(8)]
        gate.set()
        assert all(one.result(5) is FEATURES for one in asked)
    assert len(calls) == 1
    assert (meter.totals[IMAGE_MISSES], meter.totals[IMAGE_HITS]) == (1, 7)


def test_the_least_recently_used_are_forgotten() -> None:
    meter = Meter()
    cache = FeatureCache(2 * FEATURES.nbytes, meter)
    for key in (b"a", b"b", b"a", b"c"):
        cache.features(key, lambda: FEATURES)
    assert meter.totals[IMAGE_CACHE_BYTES] == 2 * FEATURES.nbytes
    misses = meter.totals[IMAGE_MISSES]
    cache.features(b"a", lambda: FEATURES)
    assert meter.totals[IMAGE_MISSES] == misses
    cache.features(b"b", lambda: FEATURES)
    assert meter.totals[IMAGE_MISSES] == misses + 1


def test_a_failure_reaches_everyone_and_is_not_kept() -> None:
    cache = FeatureCache(10**6, Meter())

    def fail() -> np.ndarray:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.features(b"key", fail)
    assert cache.features(b"key", lambda: FEATURES) is FEATURES


@pytest.mark.parametrize("bad", [np.full((4, 8), np.nan, np.float32), np.ones((4000, 8), np.float32)])
def test_what_is_not_finite_or_too_large_is_not_kept(bad: np.ndarray) -> None:
    meter = Meter()
    cache = FeatureCache(1000, meter)
    for _ in range(2):
        assert cache.features(b"key", lambda: bad) is bad
    assert meter.totals[IMAGE_MISSES] == 2
