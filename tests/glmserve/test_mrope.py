"""Position ids follow the M-RoPE rule for text, one image and several."""

from __future__ import annotations

import numpy as np
import pytest

from glmserve.errors import InvalidInput
from glmserve.model.image_processor import Grid
from glmserve.model.mrope import mrope_positions
from glmserve.model.position_embedding import bicubic_weights

IMAGE = 9


def test_the_example_of_the_reference() -> None:
    ids = np.array([1, 2, 3] + [IMAGE] * 6 + [4, 5])
    positions, delta = mrope_positions(ids, IMAGE, [Grid(4, 6)], 2)
    assert positions[0].tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7]
    assert positions[1].tolist() == [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7]
    assert positions[2].tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    assert delta == -3


def test_text_counts_up_on_every_axis() -> None:
    positions, delta = mrope_positions(np.arange(5), IMAGE, [], 2)
    assert (positions == np.arange(5)).all() and delta == 0


def test_images_side_by_side_are_told_apart() -> None:
    ids = np.array([IMAGE] * (1 + 4) + [7])
    positions, _ = mrope_positions(ids, IMAGE, [Grid(2, 2), Grid(4, 4)], 2)
    assert positions[0].tolist() == [0, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("ids", [[1, IMAGE, 2], [IMAGE] * 7, [IMAGE, IMAGE, 1, IMAGE, IMAGE, IMAGE, IMAGE]])
def test_images_and_placeholders_must_match(ids: list[int]) -> None:
    with pytest.raises(InvalidInput):
        mrope_positions(np.array(ids), IMAGE, [Grid(4, 6)], 2)


@pytest.mark.parametrize(("size", "side"), [(24, 24), (4, 24), (96, 24), (6, 8), (2, 8)])
def test_the_position_table_is_stretched_as_torch_does_it(size: int, side: int) -> None:
    torch = pytest.importorskip("torch")
    weights = bicubic_weights(size, side)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    table = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    at = ((torch.arange(size) + 0.5) / size) * 2 - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="ij")[::-1], dim=-1)[None]
    wanted = torch.nn.functional.grid_sample(table, grid, mode="bicubic", align_corners=False, padding_mode="border")
    found = np.einsum("ri,cj,kij->krc", weights, weights, table[0].numpy())
    assert np.abs(found - wanted[0].numpy()).max() < 2e-5
