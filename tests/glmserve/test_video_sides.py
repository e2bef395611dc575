"""A bound on the longer side of a video's frames holds, however the model's rules round them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from glmserve.model.config import Checkpoint
from glmserve.model.video_frames import video_size, within_side

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
RULES = replace(Checkpoint.read(DEMO).images, max_pixels=10**12)


@pytest.mark.parametrize("most_side", [2048, 300, 112])
@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [(5, 956, 2082), (9, 2107, 373), (2, 101, 40), (2, 2060, 69), (1, 2646, 2565), (1, 3793, 170), (3, 10, 1900)],
)
def test_no_side_is_longer(frames: int, height: int, width: int, most_side: int) -> None:
    assert max(video_size(frames, height, width, within_side(frames, height, width, RULES, most_side))) <= most_side


def test_no_side_of_any_video_is_longer_or_much_shorter() -> None:
    """Five frames count as four, and so are made smaller than four would be by the root of 5/4."""
    chance = random.Random(7)
    for _ in range(2000):
        frames, height, width = chance.randint(2, 16), chance.randint(28, 6000), chance.randint(28, 6000)
        most_side = chance.choice([2048, 1024, 300])
        longer = max(video_size(frames, height, width, within_side(frames, height, width, RULES, most_side)))
        assert min(most_side, max(height, width)) / 1.12 - 2 * RULES.factor < longer <= most_side, (
            frames,
            height,
            width,
        )
