"""Finds the features of images: those that were seen lately are kept, and the others wait for the image encoder.

The image whose request has least time left is encoded first, and nobody's image never. Whoever wants an image leaves a
callback and waits on no thread. An image that several requests want is encoded once. A run that nobody wants any more
is ended, so that it holds up no other.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from glmserve.engine import metrics
from glmserve.engine.metrics import Meter
from glmserve.engine.vision.niceness import be_nice
from glmserve.engine.vision.stop import Stop
from glmserve.errors import BackendDown, GlmServeError
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import VisionArrays

_log = logging.getLogger(__name__)
_STOPPING = "The engine is stopping."

EncodeImages = Callable[[list[VisionArrays], Stop], list[np.ndarray]]
"""The arrays of images of one size -> the features f32 [image tokens, hidden] of each. Raises a GlmServeError, or
anything once `Stop` is set."""
Found = Callable[[np.ndarray | GlmServeError], None]
"""Takes an image's features f32 [image tokens, hidden], or why there are none; called once, on any thread."""


class Caller(Protocol):
    """A request that wants images."""

    @property
    def deadline(self) -> float:
        """A `time.monotonic()` instant."""
        ...

    def has_left(self) -> bool:
        """Whether it was cancelled, is out of time, or has ended; asked on any thread."""
        ...


@dataclass(eq=False)
class _Job:
    """One image and who wants it; `run` is set while it is encoded."""

    key: bytes
    arrays: VisionArrays
    number: int
    wanted: list[tuple[Caller, Found]]
    run: _Run | None = None

    @property
    def urgency(self) -> tuple[float, int]:
        """Smaller is sooner: the earliest deadline, then the order of arrival."""
        return min(caller.deadline for caller, _ in self.wanted), self.number

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [array.shape for array in self.arrays]


@dataclass(eq=False)
class _Run:
    """Images that are encoded together."""

    jobs: list[_Job]
    stop: Stop = field(default_factory=Stop)


class EncodeQueue:
    """Safe to share between threads; `workers` threads of its own run the encoder.

    All images of a run have one size. It has at most `most` images and `most_patches` patches, or one larger image.
    """

    def __init__(
        self,
        encode: EncodeImages,
        cache: FeatureCache,
        meter: Meter,
        workers: int = 1,
        most: int = 1,
        most_patches: int = 1,
    ) -> None:
        self._encode, self._cache, self._meter = encode, cache, meter
        self._most, self._most_patches = most, most_patches
        self._changed = threading.Condition()
        self._jobs: dict[bytes, _Job] = {}  # by key: what waits, and what runs and may still be joined
        self._count = 0
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"image-encoder-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def want(self, key: bytes, arrays: Callable[[], VisionArrays], caller: Caller, found: Found) -> None:
        """Asks for an image's features; calls `found` now if they are cached, else when they have been computed."""
        with self._changed:
            kept = self._cache.get(key)
            if kept is None and not self._is_closed:
                is_new = key not in self._jobs
                self._meter.add(metrics.IMAGE_MISSES if is_new else metrics.IMAGE_HITS)
                if is_new:
                    self._count += 1
                    self._jobs[key] = _Job(key, arrays(), self._count, [])
                    self._changed.notify()
                self._jobs[key].wanted.append((caller, found))
                return
        if kept is None:
            found(BackendDown(_STOPPING))
            return
        self._meter.add(metrics.IMAGE_HITS)
        found(kept)

    def forget(self, caller: Caller) -> None:
        """The caller has left: its images are not encoded unless others want them, and none of its callbacks runs
        from now on, but for one that has begun."""
        with self._changed:
            self._drop(lambda other: other is caller)

    def stop(self) -> None:
        """Ends what runs and drops what waits: every callback hears that the engine stops. Twice is harmless."""
        with self._changed:
            self._is_closed = True
            jobs, self._jobs = list(self._jobs.values()), {}
            wanted = [found for job in jobs for _, found in job.wanted]
            for job in jobs:
                job.wanted.clear()
                if job.run is not None:
                    job.run.stop.set()
            self._changed.notify_all()
        for found in wanted:
            found(BackendDown(_STOPPING))

    def close(self) -> None:
        """Stops, and returns when the threads have ended."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _drop(self, has_left: Callable[[Caller], bool]) -> None:
        """Forgets who has left, every image that nobody wants any more, and ends a run of such images alone."""
        for job in list(self._jobs.values()):
            job.wanted = [(caller, found) for caller, found in job.wanted if not has_left(caller)]
            if job.wanted:
                continue
            if job.run is None:
                del self._jobs[job.key]
            elif not any(other.wanted for other in job.run.jobs):
                for other in job.run.jobs:
                    self._jobs.pop(other.key, None)  # whoever wants it next, has it encoded anew
                job.run.stop.set()

    def _work(self) -> None:
        be_nice()
        while (run := self._next()) is not None:
            found = self._features(run)
            for job, features in zip(run.jobs, found, strict=True):
                if isinstance(features, np.ndarray):
                    self._cache.keep(job.key, features)
            with self._changed:
                for job in run.jobs:
                    if self._jobs.get(job.key) is job:
                        del self._jobs[job.key]
                wanted = [job.wanted for job in run.jobs]
            for callers, features in zip(wanted, found, strict=True):
                for _, tell in callers:
                    tell(features)

    def _next(self) -> _Run | None:
        """The most urgent image, with others of its size; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._is_closed or any(job.run is None for job in self._jobs.values()))
                if self._is_closed:
                    return None
                self._drop(lambda caller: caller.has_left())
                waiting = sorted((job for job in self._jobs.values() if job.run is None), key=lambda job: job.urgency)
                if waiting:
                    break
            room = max(1, min(self._most, self._most_patches // len(waiting[0].arrays[0])))
            run = _Run([job for job in waiting if job.shapes == waiting[0].shapes][:room])
            for job in run.jobs:
                job.run = run
            return run

    def _features(self, run: _Run) -> Sequence[np.ndarray | GlmServeError]:
        try:
            return self._encode([job.arrays for job in run.jobs], run.stop)
        except Exception as error:  # the outer edge of this thread
            if run.stop.is_set():
                return [BackendDown("The image was not wanted any more.")] * len(run.jobs)
            _log.exception("%d images could not be encoded", len(run.jobs))
            return [error if isinstance(error, GlmServeError) else GlmServeError()] * len(run.jobs)


def image_key(patches: np.ndarray, grid: Grid, scope: int) -> bytes:
    """A digest of an image as the model sees it (its frames' patches, and grid) and of the scope that may share it."""
    digest = hashlib.sha256(f"{scope} {grid.rows} {grid.columns} {patches.shape} {patches.dtype}|".encode())
    digest.update(np.ascontiguousarray(patches).data)
    return digest.digest()


class FeatureCache:
    """Features of images, of which the least recently used are dropped first. Safe to share between threads; features
    that are not finite are not kept."""

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
