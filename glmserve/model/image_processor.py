"""Turns an image into uint8 patches in the order in which the image encoder takes them.

Sizes follow the model family's `smart_resize`; pixels stay uint8, because rescaling, normalisation and the repeated
frame are folded into the encoder's first layer at export. What a video's frames become is in `video_frames`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from glmserve.errors import BadImage
from glmserve.limits import MAX_ASPECT_RATIO


@dataclass(frozen=True)
class ImageRules:
    """What a checkpoint's preprocessor asks for; pixel bounds count all frames (`temporal_patch_size` per still)."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def factor(self) -> int:
        """Both sides of a resized image are multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch: three channels of patch_size x patch_size."""
        return 3 * self.patch_size * self.patch_size


@dataclass(frozen=True)
class Grid:
    """An image's rows and columns of patches; `frames` are 2 where it is two different frames of a video."""

    rows: int
    columns: int
    frames: int = 1

    @property
    def patches(self) -> int:
        """Places of a patch, which each frame has."""
        return self.rows * self.columns

    @property
    def sent_patches(self) -> int:
        """Patches of all frames together."""
        return self.frames * self.patches

    def tokens(self, merge_size: int) -> int:
        """How many tokens the language model sees: one for each merged block of patches."""
        return self.patches // (merge_size * merge_size)


def smart_resize(height: int, width: int, rules: ImageRules, frames: int | None = None) -> tuple[int, int]:
    """Height and width in pixels to resize to; raises BadImage when the sides differ more than 200 to 1.

    `frames` are those of a whole video, to which the bounds of pixels apply; without them it is a still image.
    """
    factor, frames = rules.factor, frames or rules.temporal_patch_size
    if height < 1 or width < 1:
        raise BadImage("The image has no pixels.", "image")
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise BadImage(f"The image is too narrow: its sides may differ at most {MAX_ASPECT_RATIO} to 1.", "image")
    rounded = round(height / factor) * factor, round(width / factor) * factor  # half to even, as in Python
    pixels = round(frames / rules.temporal_patch_size) * rules.temporal_patch_size * rounded[0] * rounded[1]
    if pixels > rules.max_pixels:
        shrink = math.sqrt(frames * height * width / rules.max_pixels)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if pixels < rules.min_pixels:
        grow = math.sqrt(rules.min_pixels / (frames * height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rounded


def grid_of(height: int, width: int, rules: ImageRules) -> Grid:
    """The patch grid of an image of this size, known before any pixel is decoded.

    Raises BadImage where even one row of blocks holds more pixels than the checkpoint takes: `smart_resize` makes no
    side shorter than a block, and so goes past its own bound with a strip.
    """
    resized_height, resized_width = smart_resize(height, width, rules)
    if rules.temporal_patch_size * resized_height * resized_width > rules.max_pixels:
        longest = rules.max_pixels // (rules.temporal_patch_size * rules.factor**2)
        raise BadImage(
            f"The image is too narrow: its sides may differ at most {min(longest, MAX_ASPECT_RATIO)} to 1 for this "
            f"model, and are {width} x {height} pixels.",
            "image",
        )
    return Grid(resized_height // rules.patch_size, resized_width // rules.patch_size)


def patches_of(image: Image.Image, rules: ImageRules) -> tuple[np.ndarray, Grid]:
    """Patches u8 [patches, 3 * patch * patch] of an image and their grid; BICUBIC, like the reference processor.

    Order: block row, block column, row in block, column in block; inside a patch channel, row, column.
    """
    height, width = smart_resize(image.height, image.width, rules)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return merge_blocks(image, rules), Grid(height // rules.patch_size, width // rules.patch_size)


def merge_blocks(image: Image.Image, rules: ImageRules) -> np.ndarray:
    """An RGB image with sides already multiples of `rules.factor` -> u8 [patches, 3 * patch * patch]."""
    return merge_planes([np.asarray(plane) for plane in image.split()], rules)


def merge_planes(planes: Sequence[np.ndarray] | np.ndarray, rules: ImageRules) -> np.ndarray:
    """The same from red, green and blue by themselves, each u8 [height, width].

    A patch's row in one channel lies together on both sides and is copied as one item, which takes a quarter of the
    time that its bytes would take one by one.
    """
    merge, row_of_patch = rules.merge_size, np.dtype((np.void, rules.patch_size))
    height, width = planes[0].shape
    rows, columns = height // rules.factor, width // rules.factor
    blocks = np.empty((rows, columns, merge, merge, 3, rules.patch_size), row_of_patch)
    for channel, plane in enumerate(planes):
        lines = plane.view(row_of_patch).reshape(rows, merge, rules.patch_size, columns, merge)
        blocks[:, :, :, :, channel] = lines.transpose(0, 3, 1, 4, 2)
    return blocks.view(np.uint8).reshape(-1, rules.patch_bytes)
