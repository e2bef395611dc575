"""Pictures take the sizes, and patches the order, that the model family's own processor gives them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glmserve.errors import BadImage
from glmserve.model.image_processor import ImageRules, grid_of, merge_blocks, patches_of, smart_resize

RULES = ImageRules(
    14, 2, 2, 12_544, 9_633_792, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)


@pytest.mark.parametrize(
    ("width", "height", "resized", "tokens"),
    [
        (224, 224, (224, 224), 64),
        (640, 480, (644, 476), 391),
        (1920, 1080, (1932, 1092), 2691),
        (4000, 3000, (2520, 1876), 6030),
        (6000, 4000, (2688, 1792), 6144),
        (1, 1, (84, 84), 9),
        (70, 700, (56, 700), 50),
    ],
)
def test_known_sizes(width: int, height: int, resized: tuple[int, int], tokens: int) -> None:
    assert smart_resize(height, width, RULES) == resized[::-1]
    assert grid_of(height, width, RULES).tokens(2) == tokens


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_a_resized_image_is_within_bounds_and_whole_blocks(height: int, width: int) -> None:
    try:
        rows, columns = smart_resize(height, width, RULES)
    except BadImage:
        assert max(height, width) > 100 * min(height, width)
        return
    assert rows % 28 == columns % 28 == 0
    assert 2 * rows * columns <= max(RULES.max_pixels, 2 * 28 * max(rows, columns))


def test_a_strip_is_refused_by_name() -> None:
    with pytest.raises(BadImage, match="200 to 1") as caught:
        smart_resize(28, 28 * 300, RULES)
    assert caught.value.field == "image"


def test_a_strip_that_this_model_has_no_room_for_is_refused_by_its_size() -> None:
    small = replace(RULES, max_pixels=100_352)
    assert grid_of(64, 1, small).patches == 256
    for height, width in ((150, 1), (1, 150), (28 * 70, 28), (3000, 20)):
        with pytest.raises(BadImage, match=f"at most 64 to 1 for this model, and are {width} x {height}") as caught:
            grid_of(height, width, small)
        assert caught.value.field == "image"


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 200))
def test_every_grid_is_within_the_models_bound(height: int, width: int, blocks: int) -> None:
    rules = replace(RULES, min_pixels=1568, max_pixels=2 * 28 * 28 * blocks)
    try:
        grid = grid_of(height, width, rules)
    except BadImage:
        return
    assert 2 * 14 * 14 * grid.patches <= rules.max_pixels


def test_patches_come_block_by_block_and_channel_by_channel() -> None:
    rows, columns = np.mgrid[0:56, 0:84]
    pixels = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    patches = merge_blocks(Image.fromarray(pixels), RULES).reshape(-1, 3, 14, 14)
    corners = [(int(p[0, 0, 0]), int(p[1, 0, 0])) for p in patches[:8]]
    assert corners == [(0, 0), (0, 14), (14, 0), (14, 14), (0, 28), (0, 42), (14, 28), (14, 42)]
    assert (patches[5, 2] == rows[:14, 42:56] + columns[:14, 42:56]).all()


@pytest.mark.parity
@pytest.mark.parametrize("photo", ["china.jpg", "flower.jpg"])
def test_a_photograph_gives_the_patches_of_the_reference_processor(photo: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    processing = pytest.importorskip("transformers.models.glm46v.image_processing_pil_glm46v")
    image = Image.fromarray(datasets.load_sample_image(photo))
    processor = processing.Glm46VImageProcessorPil(size={"shortest_edge": 12_544, "longest_edge": 9_633_792})
    wanted = processor(images=[image], return_tensors="np")
    patches, grid = patches_of(image, RULES)
    assert wanted["image_grid_thw"].tolist() == [[1, grid.rows, grid.columns]]
    frames = wanted["pixel_values"].reshape(len(patches), 3, 2, 196)
    std, mean = (np.array(v, np.float32)[None, :, None] for v in (RULES.std, RULES.mean))
    levels = (frames[:, :, 1] * std + mean) * 255  # back to grey levels
    assert np.abs(levels - patches.reshape(-1, 3, 196)).max() < 0.01


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(14, 2), (4, 3), (3, 1)]), st.integers(0, 2**32 - 1))
def test_every_byte_is_where_the_order_says(rows: int, columns: int, sizes: tuple[int, int], seed: int) -> None:
    rules = replace(RULES, patch_size=sizes[0], merge_size=sizes[1])
    shape = rows * rules.factor, columns * rules.factor, 3
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    patches = merge_blocks(Image.fromarray(pixels), rules)
    patch, merge = sizes
    blocks = pixels.reshape(rows, merge, patch, columns, merge, patch, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    assert patches.dtype == np.uint8 and patches.flags.c_contiguous
    np.testing.assert_array_equal(patches, blocks.reshape(-1, rules.patch_bytes))
