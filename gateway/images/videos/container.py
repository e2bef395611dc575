"""Reads video files with FFmpeg, by way of PyAV: what is in one, and its frames one after the other.

Runs in a decoding process. The container is named by who asks and never guessed, and nothing but the file is opened.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from gateway.images.videos.job import Container, Facts, VideoJob

av.logging.set_level(None)
_DEMUXERS: dict[Container, str] = {"mov": "mov", "matroska": "matroska", "gif": "gif"}
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "gif")
_CLOSE_RATE = 0.05
_LEAST_RATE, _MOST_RATE = Fraction(1, 1000), Fraction(1000)


class FileOf(io.RawIOBase):
    """The first bytes of a descriptor as a file, without a copy of them."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size, self._at = descriptor, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        count = max(0, min(len(room), self._size - self._at))
        read = os.preadv(self._descriptor, [room[:count]], self._at) if count else 0
        self._at += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


@dataclass(frozen=True)
class _Shown:
    """The instants at which the frames in a file are shown, in the stream's own time base and in order."""

    instants: list[int]
    last_lasts: int
    has_more: bool
    """Whether the file has more frames than were to be looked at."""


def facts_of(file: FileOf, job: VideoJob) -> Facts:
    """Raises almost anything for a file that is no video."""
    with _opened(file, job) as held:
        stream = held.streams.video[0]
        codec = stream.codec.canonical_name
        streams = len(held.streams)
        shown = _shown(held, stream, job.most_packets)
        rate = _rate(stream, shown)
    width, height = stream.codec_context.width, stream.codec_context.height
    if codec in CODECS and width * height <= job.most_pixels:
        first = next(_decoded(file, job))  # a phone's video lies on its side, which only a frame tells
        width, height = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
    frames = job.most_packets + 1 if shown.has_more else len(shown.instants)
    return Facts(job.container, codec, width, height, frames, float(rate), streams)


def frames_of(file: FileOf, job: VideoJob, wanted: list[int]) -> Iterator[np.ndarray]:
    """Each wanted frame, upright, u8 [height, width, 3]; of those that are broken, what was seen before them.

    `wanted` are numbers of frames in ascending order. Raises almost anything where no frame can be decoded.
    """
    with _opened(file, job) as held:
        shown = _shown(held, held.streams.video[0], job.most_packets)
    if shown.has_more:
        raise ValueError("more frames than any video may have")
    instants = shown.instants
    due = [instants[number] for number in wanted]
    before: Any = None
    for frame in _decoded(file, job):
        if frame.width * frame.height > job.most_pixels:
            raise ValueError("a frame is larger than its header says")
        at = frame.pts if frame.pts is not None else due[0]
        while due and at > due[0]:
            yield _upright(frame if before is None else before)
            due.pop(0)
        before = frame
        while due and at == due[0]:
            yield _upright(frame)
            due.pop(0)
        if not due:
            return
    for _ in due:
        yield _upright(before)


def _upright(frame: Any) -> np.ndarray:
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def _opened(file: FileOf, job: VideoJob) -> Any:
    file.seek(0)
    return av.open(file, format=_DEMUXERS[job.container], metadata_errors="ignore")


def _shown(held: Any, stream: Any, most_packets: int) -> _Shown:
    """Looks at every packet and decodes none: what an index promises need not be there."""
    instants, lasts = list[tuple[int, int]](), 0
    try:
        for packet in held.demux(stream):
            if packet.pts is None or not packet.size or packet.is_discard or packet.is_corrupt:
                continue
            instants.append((packet.pts, packet.duration or 0))
            if len(instants) > most_packets:
                break
    except av.error.FFmpegError as error:
        _raise_for_memory(error)  # anything else is a broken tail
    has_more = len(instants) > most_packets
    instants.sort()
    if instants:
        lasts = instants[-1][1]
    return _Shown(list(dict.fromkeys(at for at, _ in instants)), lasts, has_more)


def _raise_for_memory(error: av.error.FFmpegError) -> None:
    if isinstance(error, MemoryError):
        raise error


def _rate(stream: Any, shown: _Shown) -> Fraction:
    """Frames a second on average: the header's word where the frames that are there bear it out."""
    count = len(shown.instants)
    if not count:
        raise ValueError("no frame")
    told = stream.average_rate
    ticks = shown.instants[-1] - shown.instants[0]
    lasts = shown.last_lasts or (ticks // (count - 1) if count > 1 else 0)
    seconds = (ticks + lasts) * stream.time_base
    found = Fraction(count) / seconds if seconds > 0 else told or Fraction(1)
    is_borne_out = told and abs(told - found) * seconds <= max(1, _CLOSE_RATE * count)
    return min(max(Fraction(told if is_borne_out else found), _LEAST_RATE), _MOST_RATE)


def _decoded(file: FileOf, job: VideoJob) -> Iterator[Any]:
    """All frames in the order in which they are shown; broken ones are left out."""
    with _opened(file, job) as held:
        stream = held.streams.video[0]
        if stream.codec.canonical_name not in CODECS:
            raise ValueError("another codec")
        context = stream.codec_context
        context.thread_count = 1
        context.options = {"max_pixels": str(max(1, job.most_pixels))}
        packets = held.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                _raise_for_memory(error)
                packet = None
            if packet is not None and not packet.size:
                packet = None
            try:
                yield from context.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                _raise_for_memory(error)
            if packet is None:
                return
