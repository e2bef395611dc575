"""What a conversation shows: its images and videos, opened in order; their cost is known before a pixel is decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.chat.decoding import Decoding
from gateway.chat.image_decoder import OpenedImage
from gateway.chat.videos.decoder import OpenedVideo
from gateway.chat.videos.previews import previews
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage, BadVideo
from glmserve.model.bicubic import resized
from glmserve.model.chat_template import ImagePart, VideoPart
from glmserve.model.image_processor import Grid, ImageRules, grid_of
from glmserve.model.video_frames import moment_patches, video_size, within_side, within_tokens
from glmserve.model.video_sampling import FRAMES_A_MOMENT

Pixels = tuple[list[NDArray[np.uint8]], list[Grid]]
"""Patches u8 [patches of all frames, patch_bytes] of each image or each two frames, and their grids."""


class ShownImage:
    """A still image; `grids` are its one."""

    def __init__(self, opened: OpenedImage, rules: ImageRules, most_pixels: int, hashes: tuple[str, ...] = ()) -> None:
        """Raises BadImage for one that has no size within the rules, or more than the checkpoint's `most_pixels`."""
        self.opened, self.rules, self.hashes, self.part = opened, rules, hashes, ImagePart()
        width, height = opened.size
        try:
            grid = grid_of(height, width, rules)
        except BadImage as error:
            raise BadImage(error.message, opened.field) from error
        if rules.temporal_patch_size * grid.patches * rules.patch_size**2 > most_pixels:
            raise BadImage("The fewest pixels asked for are more than this image's shape can have.", opened.field)
        self.grids = [grid]


class ShownVideo:
    """A video: which frames are seen, when, and in what size; `source` decodes them."""

    def __init__(
        self,
        source: OpenedVideo | FrameList,
        numbers: list[int],
        seconds: tuple[float, ...],
        rules: ImageRules,
        hashes: tuple[str, ...] = (),
    ) -> None:
        """`numbers` are those of the frames, `seconds` when each is shown. Raises BadVideo for too narrow ones."""
        self.field, self.hashes = source.field, hashes
        self.seconds = seconds
        self._source, self._numbers, self._rules = source, numbers, rules
        self.size = self._size()
        self._previews: list[dict[str, object]] = []

    @property
    def part(self) -> VideoPart:
        return VideoPart(self.seconds[::FRAMES_A_MOMENT])

    @property
    def grids(self) -> list[Grid]:
        height, width = self.size
        side = self._rules.patch_size
        return [Grid(height // side, width // side)] * len(self.seconds[::FRAMES_A_MOMENT])

    def tokens(self, merge_size: int) -> int:
        return sum(grid.tokens(merge_size) for grid in self.grids)

    def fit(self, most_tokens: int) -> None:
        """Makes the frames small enough for so many tokens, as far as they can be made smaller."""
        facts = self._source.frame_size
        self._rules = within_tokens(len(self._numbers), facts[1], facts[0], self._rules, most_tokens)
        self.size = self._size()

    def fit_side(self, most_pixels: int) -> None:
        """Makes the frames small enough for a longer side of so many pixels."""
        width, height = self._source.frame_size
        self._rules = within_side(len(self._numbers), height, width, self._rules, most_pixels)
        self.size = self._size()

    def pixels(self, decoding: Decoding, keeps_previews: bool = False) -> Pixels:
        """Decodes the frames; raises BadVideo, DeadlineExceeded and Cancelled. `told` then has small images of them
        if `keeps_previews`."""
        frames = self._source.frames(self._numbers, *self.size, decoding.deadline, decoding.cancellation)
        if keeps_previews:
            self._previews = previews(frames, self.seconds)
        return moment_patches(frames, self._rules)

    def told(self, merge_size: int) -> dict[str, object]:
        """What the sender is told of it."""
        height, width = self.size
        return {
            "seconds": [round(second, 3) for second in self.seconds],
            "width": width,
            "height": height,
            "image_tokens": self.tokens(merge_size),
            **({"frames": self._previews} if self._previews else {}),
        }

    def _size(self) -> tuple[int, int]:
        width, height = self._source.frame_size
        try:
            return video_size(len(self._numbers), height, width, self._rules)
        except BadVideo as error:
            raise BadVideo(error.message, self.field) from error


class FrameList:
    """A video that came as a list of images of one size."""

    def __init__(self, frames: list[OpenedImage], decoders: DecoderPool, field: str) -> None:
        """Raises BadVideo where the images differ in size."""
        self.field = field
        self._frames, self._decoders = frames, decoders
        self.frame_size = frames[0].size
        for place, frame in enumerate(frames):
            if frame.size != self.frame_size:
                raise BadVideo(
                    f"The frames of a video must have one size: {frame.field} has {frame.size[0]} x {frame.size[1]} "
                    f"pixels, the first has {self.frame_size[0]} x {self.frame_size[1]}.",
                    frame.field if place else field,
                )

    def frames(
        self, numbers: list[int], height: int, width: int, deadline: Deadline, cancellation: Cancellation
    ) -> list[NDArray[np.uint8]]:
        """The frames with these numbers, u8 [3, height, width]; raises what `OpenedImage.planes` raises."""
        planes = [each.planes(self._decoders, self.frame_size, deadline, cancellation) for each in self._frames]
        return [resized(planes[number], height, width) for number in numbers]
