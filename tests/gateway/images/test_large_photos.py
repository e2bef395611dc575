"""Photos of phones with 64 to 200 megapixels, panoramas and long screenshots are decoded small, within the bounds."""

from __future__ import annotations

from collections.abc import Callable

import hostile_images as made
import pytest
from decoding_cost import cost_of
from PIL import Image
from samples import file_of

from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.images.job import GRANTED_PIXELS, PIXEL_NS
from gateway.settings import GatewaySettings
from glmserve.errors import BadImage

MIB = 1 << 20
NOISE_S = 0.5  # by which the kernel's clock of a process is late on a loaded machine
DEFAULTS = {name: field.default for name, field in GatewaySettings.model_fields.items()}
LIMITS = ImageSizeLimits(
    DEFAULTS["max_image_bytes"],
    DEFAULTS["max_image_pixels"],
    DEFAULTS["max_image_side"],
    True,
    DEFAULTS["image_memory_bytes"],
    DEFAULTS["image_cpu_s"],
)
MOST_CPU_S = LIMITS.cpu_s + GRANTED_PIXELS * PIXEL_NS / 1e9


def jpeg(width: int, height: int, mode: str = "L") -> bytes:
    return file_of(Image.linear_gradient("L").resize((width, height)).convert(mode), "JPEG", quality=90)


LARGE: dict[str, Callable[[], bytes]] = {
    "photo of 64 megapixels": lambda: jpeg(9248, 6936),
    "photo of 108 megapixels": lambda: jpeg(12_000, 9000),
    "photo of 200 megapixels": lambda: jpeg(16_320, 12_240),
    "panorama": lambda: jpeg(30_000, 3000),
    "long screenshot, jpeg": lambda: jpeg(1440, 40_000, "RGB"),
    "long screenshot, png": lambda: made.png(1440, height=40_000),
    "long screenshot with alpha, png": lambda: made.png(1440, 8, 6, height=40_000),
    "long screenshot with a palette, png": lambda: made.png(
        1440, 8, 3, made.png_chunk(b"PLTE", bytes(range(256)) * 3), height=40_000
    ),
    "map of 100 megapixels, png": lambda: made.png(10_000),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_photo_is_answered_within_the_bounds(name: str) -> None:
    cost = cost_of(LARGE[name](), LIMITS)
    assert cost.refusal is None and cost.pixels > 50_000_000
    assert cost.cpu_s < MOST_CPU_S + NOISE_S, cost
    assert cost.grown_bytes < 200 * MIB, cost


DEAR: dict[str, Callable[[], bytes]] = {
    "gif of 190 megapixels": lambda: made.gif(13_800),
    "png of 190 megapixels with alpha": lambda: made.png(13_800, 8, 6),
    "png of 190 megapixels in 16 bits": lambda: made.png(13_800, 16, 2),
    "bmp of line ends, 190 megapixels": lambda: made.bmp_line_ends(13_800, 13_800),
    "jpeg of a first scan alone, 190 megapixels": lambda: made.jpeg_scans(13_800, 0),
    "jpeg of sequential scans, 190 megapixels": lambda: made.jpeg_scans(13_800, 60, "sequential"),
    "png of compressed blocks without content, 190 megapixels": lambda: made.png_deflate_blocks(1_200_000, 13_800),
}


@pytest.mark.parametrize("name", DEAR)
def test_a_larger_image_is_granted_no_more_than_one_of_50_megapixels(name: str) -> None:
    cost = cost_of(DEAR[name](), LIMITS)
    assert cost.cpu_s < MOST_CPU_S + NOISE_S, cost
    assert cost.grown_bytes < 200 * MIB, cost


def test_more_pixels_than_any_camera_has_are_refused() -> None:
    with pytest.raises(BadImage, match="20000 x 20000 pixels; at most 200000000"):
        OpenedImage(made.gif(64)[:6] + b"\x20\x4e\x20\x4e" + made.gif(64)[10:], LIMITS)
