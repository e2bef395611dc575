"""A video's frames as the image encoder takes them: all of one size, in pairs, each pair an image of two frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from glmserve.errors import BadImage, BadVideo
from glmserve.limits import MAX_ASPECT_RATIO
from glmserve.model.image_processor import Grid, ImageRules, merge_planes, smart_resize
from glmserve.model.video_sampling import FRAMES_A_MOMENT


def video_size(frames: int, height: int, width: int, rules: ImageRules) -> tuple[int, int]:
    """Height and width in pixels that so many frames of this size are resized to.

    `rules` are a checkpoint's `videos`, whose bounds of pixels count all frames together. Raises BadVideo where the
    frames are too narrow for the model.
    """
    try:
        return smart_resize(height, width, rules, frames)
    except BadImage:
        raise BadVideo(
            f"The video's frames are {width} x {height} pixels; their sides may differ at most "
            f"{MAX_ASPECT_RATIO} to 1.",
            "video",
        ) from None


def within_tokens(frames: int, height: int, width: int, rules: ImageRules, most_tokens: int) -> ImageRules:
    """The same rules where a video needs at most this many image tokens; else with as many pixels as those cover."""
    if _tokens(frames, height, width, rules) <= most_tokens:
        return rules
    most_pixels = most_tokens * FRAMES_A_MOMENT * rules.factor**2
    return replace(rules, max_pixels=most_pixels, min_pixels=min(rules.min_pixels, most_pixels))


def within_side(frames: int, height: int, width: int, rules: ImageRules, most_side: int) -> ImageRules:
    """The same rules where no side of the resized frames has more pixels than this; else with fewer pixels. No side
    becomes shorter than a block."""
    size = video_size(frames, height, width, rules)
    if max(size) <= most_side:
        return rules
    counted = round(frames / FRAMES_A_MOMENT) * FRAMES_A_MOMENT * size[0] * size[1]  # as `smart_resize` counts them
    bounded, whole_blocks = rules, most_side // rules.factor * rules.factor
    for side in (most_side, max(1, whole_blocks - 0.5)):  # it rounds a single frame's sides up
        covered = int(frames * height * width * (side / max(height, width)) ** 2)
        most_pixels = max(1, min(covered, counted - 1) if counted else covered)
        bounded = replace(rules, max_pixels=most_pixels, min_pixels=min(rules.min_pixels, most_pixels))
        if max(video_size(frames, height, width, bounded)) <= most_side:
            break
    return bounded


def _tokens(frames: int, height: int, width: int, rules: ImageRules) -> int:
    tall, wide = video_size(frames, height, width, rules)
    return -(-frames // FRAMES_A_MOMENT) * tall * wide // rules.factor**2


def moment_patches(
    frames: Sequence[NDArray[np.uint8]], rules: ImageRules
) -> tuple[list[NDArray[np.uint8]], list[Grid]]:
    """Each two frames u8 [3, height, width], already resized, as patches u8 [patches, patch_bytes] and their grid.

    An odd frame at the end stands for two. Two equal frames are sent once, as a still image is.
    """
    patches, grids = [], []
    for at in range(0, len(frames), FRAMES_A_MOMENT):
        pair = list(frames[at : at + FRAMES_A_MOMENT])
        if len(pair) == FRAMES_A_MOMENT and np.array_equal(pair[0], pair[1]):
            del pair[1]
        height, width = pair[0].shape[1:]
        patches.append(np.concatenate([merge_planes(planes, rules) for planes in pair]))
        grids.append(Grid(height // rules.patch_size, width // rules.patch_size, len(pair)))
    return patches, grids
