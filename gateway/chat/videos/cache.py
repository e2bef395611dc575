"""Videos that were decoded a moment ago, so that the next question about one waits for nothing but the model."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.images.videos.job import Facts

_MOST_FACTS = 256
Frames = tuple[NDArray[np.uint8], ...]
"""Planes u8 [3, height, width] of each frame."""


@dataclass(frozen=True)
class VideoKey:
    """A video's file and who may share what was made of it; `asked` tells which frames in which size."""

    digest: bytes
    asked: tuple[int, ...] = ()

    @staticmethod
    def of(file_hash: str, scope: tuple[str, str]) -> VideoKey:
        """The key of a file by its hash, within a scope: who sent it, and their salt."""
        return VideoKey(hashlib.sha256(f"{scope[0]} {scope[1]}|{file_hash}".encode("utf-8", "surrogatepass")).digest())


class VideoCache:
    """Keeps frames as long as there is room, and what files hold; the least recently used go first.

    Safe to share between threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[VideoKey, Frames] = OrderedDict()
        self._bytes = 0
        self._facts: OrderedDict[VideoKey, Facts] = OrderedDict()

    def facts(self, key: VideoKey) -> Facts | None:
        """What a file holds, where it was kept."""
        with self._lock:
            return self._facts.get(key)

    def keep_facts(self, key: VideoKey, facts: Facts) -> None:
        if not self._max_bytes:
            return
        with self._lock:
            self._facts[key] = facts
            while len(self._facts) > _MOST_FACTS:
                self._facts.popitem(last=False)

    def get(self, key: VideoKey) -> Frames | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: VideoKey, frames: Frames) -> None:
        size = _bytes_of(frames)
        if size > self._max_bytes:
            return
        with self._lock:
            self._bytes += size - _bytes_of(self._kept.pop(key, ()))
            self._kept[key] = frames
            while self._bytes > self._max_bytes:
                self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])


def _bytes_of(frames: Frames) -> int:
    return sum({id(frame): frame.nbytes for frame in frames}.values())
