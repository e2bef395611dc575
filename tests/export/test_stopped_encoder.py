"""ONNX Runtime ends a run of the image encoder that is told to stop, and the next run is as good as the first."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from shared_builds import build_of_demo

from export.precision import Precision
from glmserve.build.manifest import CHECKPOINT_FOLDER, vision_in
from glmserve.engine.runtime.ort_decoder import OrtVision
from glmserve.engine.vision.stop import Stop
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import VisionArrays, vision_arrays

pytestmark = pytest.mark.build


def image(checkpoint: Checkpoint, side: int) -> VisionArrays:
    grid = Grid(side, side)
    patches = np.full((grid.patches, checkpoint.images.patch_bytes), 7, np.uint8)
    patches, rows, columns = (array[None] for array in vision_arrays(patches, grid, checkpoint.vision.table_side))
    return patches, rows, columns


def test_a_run_that_is_told_to_stop_ends_and_leaves_the_session_usable() -> None:
    build = build_of_demo(Precision.FP32)
    checkpoint, vision = Checkpoint.read(build / CHECKPOINT_FOLDER), OrtVision(vision_in(build))
    small = image(checkpoint, 4)
    right = vision.run(*small)
    large, stop = image(checkpoint, 64), Stop()
    teller = threading.Timer(0.01, stop.set)  # while it runs: 4,096 patches take longer
    teller.start()
    with pytest.raises(Exception, match="terminate"):
        vision.run(*large, stop)
    teller.join()
    np.testing.assert_array_equal(vision.run(*small, Stop()), right)
    with pytest.raises(Exception, match="terminate"):
        vision.run(*small, stop)  # told before it begins
