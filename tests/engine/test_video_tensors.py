"""A video's moments reach the engine as images of two frames, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from preparing import CHECKPOINT, tensors_of

from glmserve import contract
from glmserve.engine.triton.tensors import Tensors, read_request
from glmserve.engine.vision.encode_queue import image_key
from glmserve.errors import InvalidInput
from glmserve.model.image_processor import Grid


def _asked(frames: list[int], patches: int) -> Tensors:
    tensors = tensors_of(images=len(frames), deadline_s=1)
    tensors[contract.FRAMES.name] = np.array(frames, np.int32)
    tensors[contract.PATCHES.name] = np.zeros((patches, CHECKPOINT.images.patch_bytes), np.uint8)
    return tensors


def test_an_image_of_two_frames_has_the_patches_of_both() -> None:
    read = read_request(_asked([1, 2, 1], 16 * 4), CHECKPOINT)
    assert [(len(patches), grid) for patches, grid in read.images] == [
        (16, Grid(4, 4)),
        (32, Grid(4, 4, 2)),
        (16, Grid(4, 4)),
    ]


def test_without_the_tensor_every_image_has_one_frame() -> None:
    assert [grid.frames for _, grid in read_request(tensors_of(2, 1), CHECKPOINT).images] == [1, 1]


@pytest.mark.parametrize(
    ("frames", "patches"), [([0], 0), ([3], 48), ([-1], 16), ([2], 16), ([1], 32), ([1, 2], 32), ([2, 2], 80)]
)
def test_frames_that_do_not_fit_the_patches_are_refused(frames: list[int], patches: int) -> None:
    with pytest.raises(InvalidInput):
        read_request(_asked(frames, patches), CHECKPOINT)


def test_frames_without_a_place_are_refused() -> None:
    tensors = _asked([1, 1], 32)
    tensors[contract.FRAMES.name] = np.ones(3, np.int32)
    with pytest.raises(InvalidInput, match="frames"):
        read_request(tensors, CHECKPOINT)


def test_a_moment_and_a_still_of_its_first_frame_are_kept_apart() -> None:
    frame = np.zeros((16, CHECKPOINT.images.patch_bytes), np.uint8)
    both = np.concatenate([frame, frame + 1])
    assert image_key(frame, Grid(4, 4), 0) != image_key(both, Grid(4, 4, 2), 0)
    assert image_key(both, Grid(4, 4, 2), 0) != image_key(both[::-1], Grid(4, 4, 2), 0)
