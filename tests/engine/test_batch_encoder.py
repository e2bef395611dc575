"""Many threads have pictures read: in batches of one grid, each hears of its own, and a failure is its batch's only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from glmserve.engine.vision import batch_encoder as module
from glmserve.engine.vision.batch_encoder import BatchEncoder
from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays

TIMEOUT_S = 10.0
MANY = 10**6  # patches


class GatedSession:
    """Runs a batch when it is let; a picture's features are its first byte, and one of 255 breaks the graph."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def run(self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
        assert len(patches) == len(row_weights) == len(column_weights)
        self.batches.append([int(image[0, 0]) for image in patches])
        self.begun.release()
        assert self.gate.acquire(timeout=TIMEOUT_S)
        if patches.max() == 255:
            raise RuntimeError("the graph broke")
        return np.repeat(patches[:, :, :1].astype(np.float32), 3, axis=2)


@pytest.fixture
def session() -> GatedSession:
    return GatedSession()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def image(value: int, patches: int = 4) -> VisionArrays:
    return np.full((patches, 5), value, np.uint8), np.ones((2, 3), np.float32), np.ones((patches // 2, 3), np.float32)


def ask(pool: ThreadPoolExecutor, encoder: BatchEncoder, arrays: VisionArrays) -> Future[np.ndarray]:
    """Asks while another picture is held, and returns once this one waits."""
    asked = pool.submit(encoder.encode, arrays)
    give_up = time.monotonic() + TIMEOUT_S
    while not any(waiting.arrays is arrays for waiting in encoder._waiting):
        assert time.monotonic() < give_up
        time.sleep(0.001)
    return asked


def hold(pool: ThreadPoolExecutor, encoder: BatchEncoder, session: GatedSession) -> Future[np.ndarray]:
    """A picture of a grid of its own that is being read until the gate opens."""
    first = pool.submit(encoder.encode, image(0, patches=8))
    assert session.begun.acquire(timeout=TIMEOUT_S)
    return first


def test_what_waits_is_read_together_by_grid_and_everybody_gets_their_own(
    session: GatedSession, pool: ThreadPoolExecutor
) -> None:
    encoder = BatchEncoder(session, most=8, most_patches=MANY)
    first = hold(pool, encoder, session)
    square = [ask(pool, encoder, image(value)) for value in (1, 2, 3)]
    wide = [ask(pool, encoder, image(value, patches=6)) for value in (4, 5)]
    for _ in range(3):
        session.gate.release()
    assert first.result(TIMEOUT_S).shape == (8, 3)
    for value, asked in enumerate((*square, *wide), start=1):
        features = asked.result(TIMEOUT_S)
        assert features.shape == (4 if value <= 3 else 6, 3) and (features == value).all()
        assert features.base is None  # a view would keep the others' features alive in the cache
    assert session.batches[0] == [0] and sorted(sorted(batch) for batch in session.batches[1:]) == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("most", "most_patches", "largest"), [(1, MANY, 1), (2, MANY, 2), (8, 11, 2), (8, 4, 1), (8, 3, 1)]
)
def test_a_batch_has_no_more_images_and_patches_than_it_may(
    session: GatedSession, pool: ThreadPoolExecutor, most: int, most_patches: int, largest: int
) -> None:
    encoder = BatchEncoder(session, most, most_patches)
    first = hold(pool, encoder, session)
    asked = [ask(pool, encoder, image(value)) for value in range(1, 6)]
    for _ in range(6):
        session.gate.release()
    for value, each in enumerate((first, *asked)):
        assert (each.result(TIMEOUT_S) == value).all()
    assert max(map(len, session.batches)) == largest
    assert sorted(value for batch in session.batches for value in batch) == list(range(6))


def test_a_graph_that_fails_fails_its_batch_and_nobody_else(session: GatedSession, pool: ThreadPoolExecutor) -> None:
    encoder = BatchEncoder(session, most=8, most_patches=MANY)
    first = hold(pool, encoder, session)
    together = [ask(pool, encoder, image(value)) for value in (1, 255)]
    other = ask(pool, encoder, image(7, patches=6))
    for _ in range(4):
        session.gate.release()
    assert (first.result(TIMEOUT_S) == 0).all() and (other.result(TIMEOUT_S) == 7).all()
    for each in together:
        with pytest.raises(BackendDown, match="image encoder failed"):
            each.result(TIMEOUT_S)
    assert (encoder.encode(image(2)) == 2).all()


def test_a_graph_that_hangs_is_waited_for_so_long(
    session: GatedSession, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    encoder = BatchEncoder(session, most=8, most_patches=MANY)
    first = hold(pool, encoder, session)
    with pytest.raises(BackendDown, match="did not answer in time"):
        encoder.encode(image(1))
    session.gate.release()
    assert (first.result(TIMEOUT_S) == 0).all()
    session.gate.release()
    assert (encoder.encode(image(2)) == 2).all()
    assert session.batches == [[0], [2]]  # nobody waits for the one that was given up


def test_sixteen_threads_with_images_of_three_grids_each_get_their_own(pool: ThreadPoolExecutor) -> None:
    session = GatedSession()
    for _ in range(400):
        session.gate.release()
    encoder = BatchEncoder(session, most=4, most_patches=MANY)
    sizes = (4, 6, 8)
    asked = [pool.submit(encoder.encode, image(n % 250, patches=sizes[n % 3])) for n in range(400)]
    for n, each in enumerate(asked):
        features = each.result(TIMEOUT_S)
        assert features.shape == (sizes[n % 3], 3) and (features == n % 250).all()
    assert not encoder._waiting and sum(map(len, session.batches)) == 400
