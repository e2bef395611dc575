"""Many requests have pictures read: in batches of one grid, the most urgent first, each hears of its own, and a failure
is its batch's only. A picture that nobody wants any more holds up nobody."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from eventually import eventually

from glmserve.engine.metrics import IMAGE_HITS, IMAGE_MISSES, Meter
from glmserve.engine.vision.encode_queue import EncodeQueue, FeatureCache
from glmserve.engine.vision.niceness import NICENESS, made_nice
from glmserve.engine.vision.sessions import in_batches, one_by_one
from glmserve.engine.vision.stop import Stop
from glmserve.errors import BackendDown, GlmServeError
from glmserve.model.position_embedding import VisionArrays

TIMEOUT_S = 10.0
MANY = 10**6  # patches


class GatedSession:
    """Runs a batch when it is let or stopped. A picture's features are its first byte; one of 255 breaks the graph."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.stopped: list[list[int]] = []

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        assert len(patches) == len(row_weights) == len(column_weights) and stop is not None
        self.batches.append([int(image[0, 0]) for image in patches])
        self.begun.release()
        stop.when_set(self.gate.release)
        assert self.gate.acquire(timeout=TIMEOUT_S)
        if stop.is_set():
            self.stopped.append(self.batches[-1])
            raise RuntimeError("terminated")
        if patches.max() == 255:
            raise RuntimeError("the graph broke")
        return np.repeat(patches[:, :, :1].astype(np.float32), 3, axis=2)


class Caller:
    """Wants a picture for so long, and may leave before."""

    def __init__(self, deadline: float = 0.0) -> None:
        self.deadline = deadline
        self.is_gone = False
        self.found: Future[np.ndarray] = Future()

    def has_left(self) -> bool:
        return self.is_gone

    def hear(self, found: np.ndarray | GlmServeError) -> None:
        if isinstance(found, GlmServeError):
            self.found.set_exception(found)
        else:
            self.found.set_result(found)


class Rig:
    def __init__(self) -> None:
        self.session = GatedSession()
        self.meter = Meter()
        self.queues: list[EncodeQueue] = []
        self._keys = itertools.count()

    def queue(self, most: int = 8, most_patches: int = MANY, cache_bytes: int = 0) -> EncodeQueue:
        cache = FeatureCache(cache_bytes, self.meter)
        self.queues.append(EncodeQueue(in_batches(self.session), cache, self.meter, 1, most, most_patches))
        return self.queues[-1]

    def ask(
        self, queue: EncodeQueue, arrays: VisionArrays, caller: Caller | None = None, key: bytes | None = None
    ) -> Caller:
        caller = caller or Caller()
        queue.want(key or str(next(self._keys)).encode(), lambda: arrays, caller, caller.hear)
        return caller

    def hold(self, queue: EncodeQueue) -> Caller:
        """A picture of a grid of its own that is being read until the gate opens."""
        first = self.ask(queue, image(0, patches=8), key=b"held")
        assert self.session.begun.acquire(timeout=TIMEOUT_S)
        return first


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for queue in made.queues:
        queue.close()
        assert not queue._jobs


def image(value: int, patches: int = 4) -> VisionArrays:
    return np.full((patches, 5), value, np.uint8), np.ones((2, 3), np.float32), np.ones((patches // 2, 3), np.float32)


def test_what_waits_is_read_together_by_grid_and_everybody_gets_their_own(rig: Rig) -> None:
    queue = rig.queue()
    first = rig.hold(queue)
    square = [rig.ask(queue, image(value)) for value in (1, 2, 3)]
    wide = [rig.ask(queue, image(value, patches=6)) for value in (4, 5)]
    for _ in range(3):
        rig.session.gate.release()
    assert first.found.result(TIMEOUT_S).shape == (8, 3)
    for value, asked in enumerate((*square, *wide), start=1):
        features = asked.found.result(TIMEOUT_S)
        assert features.shape == (4 if value <= 3 else 6, 3) and (features == value).all()
        assert features.base is None  # a view would keep the others' features alive in the cache
    assert rig.session.batches == [[0], [1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("most", "most_patches", "largest"), [(1, MANY, 1), (2, MANY, 2), (8, 11, 2), (8, 4, 1), (8, 3, 1)]
)
def test_a_batch_has_no_more_images_and_patches_than_it_may(
    rig: Rig, most: int, most_patches: int, largest: int
) -> None:
    queue = rig.queue(most, most_patches)
    first = rig.hold(queue)
    asked = [rig.ask(queue, image(value)) for value in range(1, 6)]
    for _ in range(6):
        rig.session.gate.release()
    for value, each in enumerate((first, *asked)):
        assert (each.found.result(TIMEOUT_S) == value).all()
    assert max(map(len, rig.session.batches)) == largest
    assert sorted(value for batch in rig.session.batches for value in batch) == list(range(6))


def test_a_graph_that_fails_fails_its_batch_and_nobody_else(rig: Rig) -> None:
    queue = rig.queue()
    first = rig.hold(queue)
    together = [rig.ask(queue, image(value)) for value in (1, 255)]
    other = rig.ask(queue, image(7, patches=6))
    for _ in range(4):
        rig.session.gate.release()
    assert (first.found.result(TIMEOUT_S) == 0).all() and (other.found.result(TIMEOUT_S) == 7).all()
    for each in together:
        with pytest.raises(BackendDown, match="image encoder failed"):
            each.found.result(TIMEOUT_S)
    assert (rig.ask(queue, image(2)).found.result(TIMEOUT_S) == 2).all()


def test_the_shortest_deadline_comes_first_and_of_equal_ones_the_first_that_came(rig: Rig) -> None:
    queue = rig.queue(most=1)
    rig.hold(queue)
    for value, deadline in ((1, 90.0), (2, 20.0), (3, 50.0), (4, 20.0)):
        rig.ask(queue, image(value), Caller(deadline))
    rig.ask(queue, image(5), Caller(70.0), key=b"five")
    last = rig.ask(queue, image(5), Caller(10.0), key=b"five")  # the sooner of its two callers counts
    for _ in range(6):
        rig.session.gate.release()
    assert (last.found.result(TIMEOUT_S) == 5).all()
    assert eventually(lambda: rig.session.batches == [[0], [5], [2], [4], [3], [1]])


def test_a_run_that_nobody_wants_is_ended_and_the_next_begins(rig: Rig) -> None:
    queue = rig.queue()
    gone = rig.hold(queue)
    next_one = rig.ask(queue, image(1))
    queue.forget(gone)
    assert rig.session.begun.acquire(timeout=TIMEOUT_S) and rig.session.stopped == [[0]]
    rig.session.gate.release()
    assert (next_one.found.result(TIMEOUT_S) == 1).all() and not gone.found.done()


def test_a_run_goes_on_while_one_of_several_callers_waits_for_it(rig: Rig) -> None:
    queue = rig.queue()
    gone, stays = rig.hold(queue), rig.ask(queue, image(0, patches=8), key=b"held")
    queue.forget(gone)
    rig.session.gate.release()
    assert (stays.found.result(TIMEOUT_S) == 0).all() and rig.session.batches == [[0]] and not rig.session.stopped
    assert not gone.found.done()


def test_of_a_batch_the_others_go_on_when_one_leaves(rig: Rig) -> None:
    queue = rig.queue()
    rig.hold(queue)
    gone, stays = rig.ask(queue, image(1)), rig.ask(queue, image(2))
    rig.session.gate.release()
    assert rig.session.begun.acquire(timeout=TIMEOUT_S)
    queue.forget(gone)
    rig.session.gate.release()
    assert (stays.found.result(TIMEOUT_S) == 2).all() and not rig.session.stopped


def test_a_picture_whose_run_was_ended_is_read_anew_for_who_wants_it_next(rig: Rig) -> None:
    queue = rig.queue()
    queue.forget(rig.hold(queue))
    again = rig.ask(queue, image(0, patches=8), key=b"held")
    assert rig.session.begun.acquire(timeout=TIMEOUT_S)
    rig.session.gate.release()
    assert (again.found.result(TIMEOUT_S) == 0).all()


@pytest.mark.parametrize("tells", [True, False])
def test_what_waits_for_nobody_is_never_read(rig: Rig, tells: bool) -> None:
    """Whether its caller says so, or is only found to have left when its turn comes."""
    queue = rig.queue()
    first = rig.hold(queue)
    gone = rig.ask(queue, image(1))
    if tells:
        queue.forget(gone)
    gone.is_gone = True
    rig.session.gate.release()
    assert (first.found.result(TIMEOUT_S) == 0).all()
    other = rig.ask(queue, image(2))
    rig.session.gate.release()
    assert (other.found.result(TIMEOUT_S) == 2).all() and rig.session.batches == [[0], [2]]


def test_those_who_ask_at_once_share_one_encoding_and_later_ones_the_cache(rig: Rig) -> None:
    queue = rig.queue(cache_bytes=10**6)
    asked = [rig.ask(queue, image(3), key=b"key") for _ in range(8)]
    rig.session.gate.release()
    results = [one.found.result(TIMEOUT_S) for one in asked]
    assert all(result is results[0] for result in results) and rig.session.batches == [[3]]
    assert (rig.meter.totals[IMAGE_MISSES], rig.meter.totals[IMAGE_HITS]) == (1, 7)
    assert rig.ask(queue, image(3), key=b"key").found.result(0) is results[0]
    assert (rig.meter.totals[IMAGE_MISSES], rig.meter.totals[IMAGE_HITS]) == (1, 8)


def test_a_failure_reaches_everyone_and_is_not_kept(rig: Rig) -> None:
    queue = rig.queue(cache_bytes=10**6)
    both = [rig.ask(queue, image(255), key=b"key") for _ in range(2)]
    rig.session.gate.release()
    for each in both:
        with pytest.raises(BackendDown):
            each.found.result(TIMEOUT_S)
    again = rig.ask(queue, image(4), key=b"key")
    rig.session.gate.release()
    assert (again.found.result(TIMEOUT_S) == 4).all()


@pytest.mark.parametrize(
    ("encode", "code"), [(lambda _: _raise(BackendDown()), "backend_down"), (lambda _: 1 / 0, "internal")]
)
def test_an_error_of_our_own_is_passed_on_and_a_foreign_one_is_not(
    rig: Rig, encode: Callable[[VisionArrays], np.ndarray], code: str
) -> None:
    queue = EncodeQueue(one_by_one(encode), FeatureCache(0, rig.meter), rig.meter)
    rig.queues.append(queue)
    error = rig.ask(queue, image(1)).found.exception(TIMEOUT_S)
    assert isinstance(error, GlmServeError) and error.code == code


def test_the_encoder_and_what_it_starts_have_a_low_priority(rig: Rig) -> None:
    """So that it takes no core from the decoder's steps."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def priority_of_a_child() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(priority).result(TIMEOUT_S)

    ours, seen = priority(), list[int]()

    def encode(_: VisionArrays) -> np.ndarray:
        seen.append(priority())
        return np.zeros((1, 1), np.float32)

    queue = EncodeQueue(one_by_one(encode), FeatureCache(0, rig.meter), rig.meter)
    rig.queues.append(queue)
    rig.ask(queue, image(1)).found.result(TIMEOUT_S)
    assert seen == [NICENESS] and made_nice(priority_of_a_child) == NICENESS and priority() == ours


def test_closing_ends_what_runs_and_answers_everybody(rig: Rig) -> None:
    queue = rig.queue()
    asked = [rig.hold(queue), rig.ask(queue, image(1))]
    queue.close()
    asked.append(rig.ask(queue, image(2)))
    for each in asked:
        with pytest.raises(BackendDown, match="stopping"):
            each.found.result(TIMEOUT_S)
    assert rig.session.stopped == [[0]]


def test_many_callers_come_and_leave_and_each_who_stays_gets_their_own(rig: Rig) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    rig.session.run = _quick(rig.session)  # type: ignore[method-assign]
    queue = rig.queue(most=4)
    sizes = (4, 6, 8)
    callers: list[tuple[int, Caller, bool]] = []
    for number in range(400):
        value, caller, leaves = draw.randrange(200), Caller(draw.random()), draw.random() < 0.3
        rig.ask(queue, image(value, sizes[value % 3]), caller, key=str(value).encode())
        callers.append((value, caller, leaves))
        if leaves:
            queue.forget(caller)
        if number % 50 == 0:
            time.sleep(0.002)
    for value, caller, leaves in callers:
        if not leaves:
            features = caller.found.result(TIMEOUT_S)
            assert features.shape == (sizes[value % 3], 3) and (features == value).all()


def _quick(session: GatedSession) -> Callable[..., np.ndarray]:
    def run(patches: np.ndarray, rows: np.ndarray, columns: np.ndarray, stop: Stop) -> np.ndarray:
        time.sleep(0.0005)
        if stop.is_set():
            raise RuntimeError("terminated")
        return np.repeat(patches[:, :, :1].astype(np.float32), 3, axis=2)

    return run


def _raise(error: Exception) -> np.ndarray:
    raise error
