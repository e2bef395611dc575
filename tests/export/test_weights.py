"""Every tensor of a checkpoint goes into the graphs, in the shape transformers gives it; the real model's too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from large_checkpoint import RecordingWeights
from real_checkpoint import REAL, needs_real

from export.graph.decoder import decoder_graph
from export.graph.vision_encoder import fold_frame_difference, fold_patch_embedding, vision_graph
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.mark.parity
@pytest.mark.parametrize(("folder", "tensors"), [(DEMO, None), pytest.param(REAL, 704, marks=needs_real)])
def test_the_graphs_take_every_tensor_of_the_checkpoint(folder: Path, tensors: int | None) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.Glm4vForConditionalGeneration(transformers.AutoConfig.from_pretrained(folder))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights, checkpoint = RecordingWeights(), Checkpoint.read(folder)
    vision_graph(checkpoint, weights)
    decoder_graph(checkpoint, weights)
    assert weights.asked == wanted
    assert tensors is None or len(wanted) == tensors


def test_the_folded_first_layer_reads_uint8_as_the_unfolded_one_reads_floats() -> None:
    random = np.random.default_rng(0)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    weight, bias = random.normal(size=(5, 3, 2, 14, 14)), random.normal(size=5)
    pixels = random.integers(0, 256, (7, 3, 14, 14))
    normalised = (pixels / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    wanted = np.einsum("ocfyx,ncyx->no", weight, normalised) + bias
    folded, shift = fold_patch_embedding(weight, bias, mean, std)
    assert np.abs(pixels.reshape(7, -1) @ folded.T + shift - wanted).max() < 1e-4


def test_the_folded_first_layer_tells_the_two_frames_of_a_video_apart() -> None:
    random = np.random.default_rng(1)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    weight, bias = random.normal(size=(5, 3, 2, 14, 14)), random.normal(size=5)
    frames = random.integers(0, 256, (2, 7, 3, 14, 14))
    normalised = (frames / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    wanted = np.einsum("octyx,tncyx->no", weight, normalised) + bias
    folded, shift = fold_patch_embedding(weight, bias, mean, std)
    flat, middle = frames.reshape(2, 7, -1), frames.reshape(2, 7, -1).mean(axis=0)
    found = middle @ folded.T + (flat[0] - middle) @ fold_frame_difference(weight, std).T + shift
    assert np.abs(found - wanted).max() < 1e-4
