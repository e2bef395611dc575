"""The video in a request: its file becomes facts and a choice of frames, and then the pixels of these."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gateway.chat.videos.cache import VideoCache, VideoKey
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool, DecodingFailed
from gateway.images.file_kinds import other_kind
from gateway.images.image_file import Refused, Undecodable
from gateway.images.isobmff import is_isobmff
from gateway.images.job import Outcome
from gateway.images.structure import read_structure
from gateway.images.videos.job import Container, Facts, VideoJob
from gateway.triton.backend import Cancellation
from glmserve.errors import BadVideo
from glmserve.model.video_sampling import VideoFacts

CODECS = {
    "mov": ("h264", "hevc", "vp9", "av1"),
    "matroska": ("h264", "hevc", "vp8", "vp9", "av1"),
    "gif": ("gif",),
    "webp": ("webp",),
}
"""What is read, by container; names are FFmpeg's."""
ACCEPTED = "MP4, MOV, WebM or MKV in H.264, HEVC, VP8, VP9 or AV1, an animated GIF, or an animated WebP"
_BEGINS = {"mov": "MP4 or MOV", "matroska": "WebM or MKV", "gif": "a GIF", "webp": "an animated WebP"}
_MOST_STREAMS = 16
_PIXEL_NS = 10
"""Processor time that decoding a pixel may take, in a frame that is shown to the model or not."""
_SHOWN_PIXEL_NS = 60
"""And what a pixel of a frame that is shown may take beside, to become RGB and another size."""
_BYTE_NS = 80
"""And what a byte of the file may take: one in AV1 of a high quality takes as much."""
_INDEX_BYTE_NS = 10
"""What a byte may take where only the file's index is read."""
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp")
_IMAGES = ("JPEG", "PNG", "BMP", "AVIF", "HEIF", "WEBP")


@dataclass(frozen=True)
class VideoLimits:
    """How large a video may be: its file, how long it lasts, its frames, the pixels of one and of all of them.

    And what decoding it may take: memory, and seconds of processor time beyond what its pixels are granted.
    """

    max_bytes: int
    max_s: float
    max_frames: int
    max_frame_pixels: int
    max_pixels: int
    memory_bytes: int
    cpu_s: float


class OpenedVideo:
    """A video file of which only the index was read; `facts` are what it holds."""

    def __init__(
        self,
        data: bytes,
        limits: VideoLimits,
        decoders: DecoderPool,
        deadline: Deadline,
        cancellation: Cancellation,
        field: str = "video",
        cache: VideoCache | None = None,
        key: VideoKey | None = None,
    ) -> None:
        """Raises BadVideo for bytes that are no video, and for one that is too large or of a kind that is not read.

        What was found before of a file with this `key` is taken from the `cache`.
        """
        self.field = field
        self._data, self._limits, self._decoders = data, limits, decoders
        self._cache, self._key = (cache, key) if cache and key else (VideoCache(0), VideoKey(b""))
        self._container = _container_of(data)
        if self._container is None:
            raise self._unreadable(_kind_of(data))
        self.facts = self._cache.facts(self._key) or self._found(deadline, cancellation)
        self._check()
        self._cache.keep_facts(self._key, self.facts)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of the frames, upright."""
        return self.facts.width, self.facts.height

    @property
    def rate(self) -> VideoFacts:
        """What sampling needs to know."""
        return VideoFacts(self.facts.frames, self.facts.fps)

    def frames(
        self, numbers: list[int], height: int, width: int, deadline: Deadline, cancellation: Cancellation
    ) -> list[NDArray[np.uint8]]:
        """The frames with these numbers, u8 [3, height, width], resized as the model family's processor does it.

        Raises BadVideo when none of them can be decoded, or that takes too much time or memory; DeadlineExceeded and
        Cancelled.
        """
        unique = list(dict.fromkeys(numbers))
        key = replace(self._key, asked=(height, width, *unique))
        planes = self._cache.get(key)
        if planes is None:
            planes = tuple(self._decoded(unique, height, width, deadline, cancellation))
            self._cache.keep(key, planes)
        by_number = dict(zip(unique, planes, strict=True))
        return [by_number[number] for number in numbers]

    def _found(self, deadline: Deadline, cancellation: Cancellation) -> Facts:
        job = self._job("FACTS", self._limits.cpu_s / 2 + len(self._data) * _INDEX_BYTE_NS / 1e9)
        try:
            return self._decoders.facts(self._data, job, deadline, cancellation)
        except DecodingFailed as error:
            raise self._failed(error, job) from error

    def _decoded(
        self, unique: list[int], height: int, width: int, deadline: Deadline, cancellation: Cancellation
    ) -> list[NDArray[np.uint8]]:
        facts = self.facts
        pixels = facts.width * facts.height
        nanoseconds = pixels * (min(unique[-1] + 16, facts.frames) * _PIXEL_NS + len(unique) * _SHOWN_PIXEL_NS)
        cpu_s = self._limits.cpu_s / 2 + (nanoseconds + len(self._data) * _BYTE_NS) / 1e9
        job = self._job("FRAMES", cpu_s, len(unique), height, width)
        try:
            planes = self._decoders.frames(self._data, unique, job, deadline, cancellation)
        except DecodingFailed as error:
            raise self._failed(error, job) from error
        if len(planes) != len(unique):
            raise self._broken()
        return planes

    def _job(self, task: str, cpu_s: float, wanted: int = 0, height: int = 0, width: int = 0) -> VideoJob:
        assert self._container is not None
        return VideoJob(
            task,  # type: ignore[arg-type]
            self._container,
            len(self._data),
            wanted,
            width,
            height,
            self._limits.max_frames,
            self._limits.max_frame_pixels,
            cpu_s,
            self._limits.memory_bytes,
        )

    def _check(self) -> None:
        facts, limits = self.facts, self._limits
        if facts.codec not in CODECS[facts.container]:
            raise BadVideo(f"The video is in {facts.codec[:32]}, which is not read: send {ACCEPTED}.", self.field)
        if facts.streams > _MOST_STREAMS:
            raise BadVideo(
                f"The video's file has {facts.streams} streams; at most {_MOST_STREAMS} are accepted.", self.field
            )
        pixels = facts.width * facts.height
        if not pixels or not facts.frames:
            raise self._broken()
        if pixels > limits.max_frame_pixels:
            raise BadVideo(
                f"The video's frames are {facts.width} x {facts.height} pixels; at most {limits.max_frame_pixels} in "
                "all are accepted: send it smaller.",
                self.field,
            )
        if facts.frames > limits.max_frames:
            raise BadVideo(
                f"The video has more than {limits.max_frames} frames, and no more are accepted: send a part "
                "of it, or fewer frames a second.",
                self.field,
            )
        if facts.frames / facts.fps > limits.max_s:
            raise BadVideo(
                f"The video lasts {facts.frames / facts.fps:.0f} s; at most {limits.max_s:g} s are accepted: send a "
                "part of it.",
                self.field,
            )
        if pixels * facts.frames > limits.max_pixels:
            raise BadVideo(
                f"The video has {facts.frames} frames of {facts.width} x {facts.height} pixels; at most "
                f"{limits.max_pixels // pixels} frames of this size are accepted: send it smaller, or a part of it.",
                self.field,
            )

    def _failed(self, error: DecodingFailed, job: VideoJob) -> BadVideo:
        if error.outcome is Outcome.UNDECODABLE:
            return self._broken()
        if error.outcome is Outcome.OUT_OF_MEMORY:
            return BadVideo(
                f"Decoding the video takes more than {self._limits.memory_bytes >> 20} MiB of memory: send it smaller.",
                self.field,
            )
        return BadVideo(
            f"Decoding the video takes more than {job.cpu_s:.1f} s of processor time, which is all that one of its "
            "size may take: send it smaller, or a part of it.",
            self.field,
        )

    def _broken(self) -> BadVideo:
        """Of a file that begins as a video does."""
        assert self._container is not None
        return BadVideo(
            f"The video cannot be decoded: its file begins as {_BEGINS[self._container]}, and is damaged, cut off or "
            f"without a picture. Send the whole file, in {ACCEPTED}.",
            self.field,
        )

    def _unreadable(self, kind: str | None = None) -> BadVideo:
        is_other = f"it is {kind}, and" if kind else "it"
        return BadVideo(f"The video cannot be decoded: {is_other} must be {ACCEPTED}.", self.field)


def _container_of(data: bytes) -> Container | None:
    """By the file's first bytes; None for what is no video."""
    if data.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp" if b"ANMF" in data else None
    if data[4:8] in _FIRST_BOXES and not is_isobmff(data):
        return "mov"
    return None


def _kind_of(data: bytes) -> str | None:
    try:
        kind = read_structure(data).kind
    except (Undecodable, Refused):
        return other_kind(data)
    return f"a {kind} image, which is sent as one" if kind in _IMAGES else None
