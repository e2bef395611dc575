"""Videos of numbers, and conversations about them: what our rules and transformers' are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np

Parts = tuple[str, ...]
"""What one message holds: "video", "image", or text."""

_SIZES = ((64, 64), (97, 133), (33, 120), (150, 56), (17, 40), (120, 160), (28, 300))
_LENGTHS = (1, 2, 3, 5, 7, 8, 11, 15, 24, 29, 31, 47, 59, 60, 61, 75, 90, 97, 120, 151, 179, 181)
_RATES = (1.0, 2.0, 7.5, 12.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0)


@dataclass(frozen=True)
class VideoCase:
    """A conversation: `videos` are frames, rate, height and width of each; `turns` are a user's but every second."""

    name: str
    videos: tuple[tuple[int, float, int, int], ...]
    turns: tuple[Parts, ...] = (("video", "What happens?"),)
    images: tuple[tuple[int, int], ...] = ()
    thinking: bool = False

    def frames(self, index: int) -> np.ndarray:
        """u8 [frames, height, width, 3], each frame another."""
        count, _, height, width = self.videos[index]
        return _noise((count, height, width, 3), index)

    def image(self, index: int) -> np.ndarray:
        """u8 [height, width, 3]"""
        return _noise((*self.images[index], 3), 100 + index)


def _noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _lasts_long_enough(frames: int, rate: float) -> bool:
    """transformers finds no frame in less than a sixth of a second."""
    return frames / rate >= 1 / 6


def _single_videos() -> list[VideoCase]:
    rates, sizes = cycle(_RATES), cycle(_SIZES)
    pairs = [(frames, next(rates)) for frames in _LENGTHS * 2]
    return [
        VideoCase(f"{frames} frames, {rate:.5g} a second, {height} x {width}", ((frames, rate, height, width),))
        for (frames, rate), (height, width) in zip(pairs, sizes, strict=False)
        if _lasts_long_enough(frames, rate)
    ]


CASES = (
    *_single_videos(),
    VideoCase("31 seconds", ((31 * 4, 4.0, 32, 40),)),
    VideoCase("5 minutes", ((300, 1.0, 32, 40),)),
    VideoCase("7 minutes", ((420, 1.0, 30, 29),)),
    VideoCase("42 minutes", ((1260, 0.5, 28, 28),)),
    VideoCase("a second text", ((10, 5.0, 64, 80),), (("Watch: ", "video", "Well?"),)),
    VideoCase("two videos", ((9, 9.0, 64, 80), (5, 5.0, 40, 30)), (("video", "then", "video", "Same?"),)),
    VideoCase("a picture first", ((9, 9.0, 64, 80),), (("image", "video", "Is it in the video?"),), ((90, 70),)),
    VideoCase("a picture after", ((9, 9.0, 64, 80),), (("video", "image", "Is it in the video?"),), ((90, 70),)),
    VideoCase(
        "pictures and videos over turns",
        ((6, 6.0, 48, 60), (13, 6.5, 60, 48)),
        (
            ("image", "What is this?"),
            ("a square",),
            ("video", "And here?"),
            ("It moves.",),
            ("image", "video", "image", "Now?"),
        ),
        ((56, 56), (30, 200), (99, 45)),
    ),
    VideoCase("thinking", ((12, 6.0, 50, 50),), thinking=True),
)
