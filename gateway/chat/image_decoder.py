"""The image in a request: its file's bytes become an image of known size and cost, and then pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool, DecodingFailed
from gateway.images.file_kinds import is_film, other_kind
from gateway.images.heif import can_read_heif
from gateway.images.image_file import Refused, Undecodable
from gateway.images.job import GRANTED_PIXELS, PIXEL_NS, Job, Outcome
from gateway.images.structure import read_structure
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage

_LYING = (5, 6, 7, 8)
_SCALES = (2, 4, 8)
_CLOSE = 0.9
_PIXEL_BYTES = 4  # as Pillow keeps them


@dataclass(frozen=True)
class ImageSizeLimits:
    """How large an image may be: file, pixels, and the longer side, beyond which it is made smaller or refused.

    And what decoding it may take: memory, and seconds of processor time beyond what its pixels are granted.
    """

    max_bytes: int
    max_pixels: int
    max_side: int
    shrinks: bool
    memory_bytes: int = 176 << 20
    cpu_s: float = 0.8


class OpenedImage:
    """An image of which only the structure was read; `size` is the width and height that it will have, upright.

    `field` is where in the request it stood.
    """

    def __init__(self, data: bytes, limits: ImageSizeLimits, field: str = "image") -> None:
        """Raises BadImage for bytes that are no image, and for one that is too large or built to be dear."""
        self.field = field
        self._limits = limits
        try:
            self.file = read_structure(data)
        except Undecodable as error:
            raise self._undecodable(other_kind(data)) from error
        except Refused as error:
            raise BadImage(str(error), field) from None
        file = self.file
        if file.kind == "HEIF" and not can_read_heif():
            raise BadImage(
                "The image is a HEIC photo, and this service does not read them: send it as a JPEG, in which a phone "
                "takes photos once its camera is set to the most compatible format. (Whoever runs the service may "
                "install requirements/heic.txt.)",
                field,
            )
        if file.width * file.height > limits.max_pixels:
            raise BadImage(
                f"The image has {file.width} x {file.height} pixels; at most {limits.max_pixels} in all are accepted.",
                field,
            )
        self.size = (file.height, file.width) if file.orientation in _LYING else (file.width, file.height)
        self._draft = (0, 0)
        if max(self.size) > limits.max_side:
            self._fit()
        needed_bytes = file.buffer_bytes + self._decoded_bytes() if file.buffer_bytes else 0
        if needed_bytes > limits.memory_bytes:
            raise self._too_heavy(needed_bytes)

    def planes(
        self,
        decoders: DecoderPool,
        size: tuple[int, int],
        deadline: Deadline,
        cancellation: Cancellation,
    ) -> NDArray[np.uint8]:
        """Red, green and blue of the first frame, u8 [3, height, width], in the width and height that are asked for.

        Raises BadImage when the data is not whole, or takes too much time or memory; DeadlineExceeded and Cancelled.
        """
        job = self.job(size)
        try:
            return decoders.decode(self.file.parts, job, deadline, cancellation)
        except DecodingFailed as error:
            if error.outcome is Outcome.OUT_OF_MEMORY:
                raise self._too_heavy() from error
            if error.outcome is Outcome.UNDECODABLE:
                raise self._undecodable() from error
            raise BadImage(
                f"Decoding the image takes more than {job.cpu_s:.1f} s of processor time, which is all that one of "
                f"{job.width} x {job.height} pixels may take.",
                self.field,
            ) from error

    def job(self, size: tuple[int, int]) -> Job:
        """What a decoding process is asked to do, for a width and height that the model reads."""
        file, limits = self.file, self._limits
        return Job(
            file.kind,
            sum(map(len, file.parts)),
            file.width,
            file.height,
            file.orientation,
            *self._draft,
            *self.size,
            *size,
            limits.cpu_s + min(file.width * file.height, GRANTED_PIXELS) * PIXEL_NS / 1e9,
            limits.memory_bytes,
        )

    def _fit(self) -> None:
        width, height = self.size
        most = self._limits.max_side
        if not self._limits.shrinks:
            raise BadImage(
                f"The image is {width} x {height} pixels; its longer side may have at most {most}.", self.field
            )
        scale = self._scale() or max(width, height) / most
        self.size = max(1, math.ceil(width / scale)), max(1, math.ceil(height / scale))
        # a JPEG is decoded no larger than this takes
        self._draft = self.size[::-1] if self.file.orientation in _LYING else self.size

    def _scale(self) -> int:
        """By how much a JPEG's own reduced decoding gets close below the limit, 0 where it does not.

        It leaves out coefficients instead of computing pixels that are thrown away: a third of the time.
        """
        if not self.file.scales:
            return 0
        most, longer = self._limits.max_side, max(self.size)
        return next((s for s in _SCALES if _CLOSE * most <= math.ceil(longer / s) <= most), 0)

    def _decoded_bytes(self) -> int:
        """What a JPEG weighs as pixels, beside what its decoder holds; others count theirs among that."""
        width, height = self.file.width, self.file.height
        if self.file.kind != "JPEG":
            return 0
        if self._draft[0]:
            scale = min(width // self._draft[0], height // self._draft[1])
            by = next((s for s in reversed(_SCALES) if s <= scale), 1)
            width, height = math.ceil(width / by), math.ceil(height / by)
        return width * height * _PIXEL_BYTES

    def _undecodable(self, kind: str | None = None) -> BadImage:
        is_other = f"it is {kind}, and" if kind else "it"
        film = " A film is sent as a video: in the field video, or a part of type video_url." if is_film(kind) else ""
        return BadImage(
            f"The image cannot be decoded: {is_other} must be a whole JPEG, PNG, WebP, AVIF, BMP or GIF image.{film}",
            self.field,
        )

    def _too_heavy(self, needed_bytes: int = 0) -> BadImage:
        most = f"{self._limits.memory_bytes >> 20} MiB"
        needed = (
            f"about {needed_bytes >> 20} MiB of memory, and at most {most} are allowed"
            if needed_bytes
            else (f"more than {most} of memory")
        )
        return BadImage(
            f"Decoding the image takes {needed}: send it smaller, or a photo as a baseline JPEG.", self.field
        )
