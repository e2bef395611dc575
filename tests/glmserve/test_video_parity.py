"""Videos become the prompt, positions and pixels that transformers' processor makes of them, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_checkpoints import DEMO, needs_torch
from real_checkpoint import REAL, needs_real, real_tokenizer
from video_cases import CASES, VideoCase
from video_reference import write_reference

from glmserve.model.bicubic import resized
from glmserve.model.chat_template import ImagePart, Message, Part, PromptBuilder, VideoPart
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, grid_of
from glmserve.model.mrope import mrope_positions
from glmserve.model.tokenizer import Tokenizer
from glmserve.model.video_frames import moment_patches, video_size
from glmserve.model.video_sampling import VideoFacts, sampled_frames, seconds_of

pytestmark = [needs_torch, pytest.mark.parity]


class _Ours:
    """A checkpoint's rules applied to a case."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = Checkpoint.read(folder)
        tokenizer = real_tokenizer() if folder == REAL else Tokenizer.read(folder)
        self.prompts = PromptBuilder.read(folder, tokenizer, self.checkpoint.image_token_id, 2)

    def read(self, case: VideoCase) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
        """Ids, positions, delta and normalised pixels."""
        messages, grids, pixels = [], list[Grid](), list[np.ndarray]()
        videos, images = iter(range(len(case.videos))), iter(range(len(case.images)))
        for place, parts in enumerate(case.turns):
            said: list[Part] = []
            for part in parts:
                if part == "video":
                    seconds, patches, seen = self._video(case, next(videos))
                    said.append(VideoPart(seconds[::2]))
                    grids += seen
                    pixels += [self._normalised(each, grid) for each, grid in zip(patches, seen, strict=True)]
                elif part == "image":
                    said.append(ImagePart())
                    grids.append(grid_of(*case.images[next(images)], self.checkpoint.images))
                else:
                    said.append(part)
            messages.append(Message("assistant" if place % 2 else "user", tuple(said)))
        ids = self.prompts.build(messages, grids, case.thinking)
        positions, delta = mrope_positions(ids, self.checkpoint.image_token_id, grids, 2)
        return ids, positions, delta, np.concatenate(pixels)

    def _video(self, case: VideoCase, index: int) -> tuple[tuple[float, ...], list[np.ndarray], list[Grid]]:
        count, fps, height, width = case.videos[index]
        numbers = sampled_frames(VideoFacts(count, fps))
        size = video_size(len(numbers), height, width, self.checkpoint.videos)
        frames = case.frames(index)
        planes = [resized(frames[number].transpose(2, 0, 1), *size) for number in numbers]
        return seconds_of(numbers, fps), *moment_patches(planes, self.checkpoint.videos)

    def _normalised(self, patches: np.ndarray, grid: Grid) -> np.ndarray:
        """f32 [patches, 3 * frames * patch * patch] in transformers' order of the two frames' bytes."""
        rules = self.checkpoint.videos
        frames = patches.reshape(grid.frames, grid.patches, 3, -1).astype(np.float32)
        both = np.stack([frames[0], frames[-1]], axis=2)
        mean, std = (np.asarray(v, np.float32)[None, :, None, None] for v in (rules.mean, rules.std))
        return ((both / np.float32(255) - mean) / std).reshape(grid.patches, -1)


@pytest.fixture(scope="module", params=[DEMO, pytest.param(REAL, marks=needs_real)], ids=["demo", "real"])
def both(request: Any, tmp_path_factory: Any) -> tuple[_Ours, Any]:
    out = tmp_path_factory.mktemp("videos") / "reference.npz"
    write_reference(request.param, out)
    return _Ours(request.param), np.load(out)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_ids_positions_and_pixels_are_transformers_own(both: tuple[_Ours, Any], number: int) -> None:
    ours, theirs = both
    ids, positions, delta, pixels = ours.read(CASES[number])
    np.testing.assert_array_equal(ids, theirs[f"ids {number}"])
    np.testing.assert_array_equal(positions, theirs[f"positions {number}"])
    assert delta == theirs[f"delta {number}"].item()
    wanted = theirs[f"pixels {number}"]
    assert pixels.shape == wanted.shape
    np.testing.assert_allclose(pixels, wanted, atol=2e-6)  # the same bytes: one level would be 0.014


def test_there_are_forty_videos_and_more() -> None:
    assert sum(len(case.videos) for case in CASES) >= 40
