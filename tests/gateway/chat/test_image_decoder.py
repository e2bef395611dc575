"""Every image users send becomes upright RGB."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from decoding import pixels_of
from PIL import Image, ImageOps
from samples import file_of

from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.reading.base64_file import bytes_of_base64
from glmserve.errors import BadImage, TooLarge

MOST = 1_000_000


def image_of(data: bytes, most: int, side: int = 4000, shrinks: bool = True) -> Image.Image:
    return pixels_of(OpenedImage(data, ImageSizeLimits(MOST, most, side, shrinks)))


def colour_at(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    return tuple(int(v) for v in np.asarray(image)[y, x])  # type: ignore[return-value]


def test_plain_rgb_is_not_changed_by_a_bit() -> None:
    noise = Image.effect_noise((40, 30), 99).convert("RGB")
    decoded = image_of(file_of(noise), MOST)
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(noise))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_show_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0)).convert(mode)
    assert colour_at(image_of(file_of(clear), MOST)) == (255, 255, 255)


def test_half_transparent_red_shows_pink() -> None:
    assert colour_at(image_of(file_of(Image.new("RGBA", (4, 4), (255, 0, 0, 128))), MOST)) == (255, 127, 127)


def test_a_palettes_transparent_entry_shows_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    assert colour_at(image_of(file_of(image, "GIF", transparency=1), MOST)) == (255, 255, 255)
    assert colour_at(image_of(file_of(image, "PNG"), MOST)) == (0, 0, 255)


def test_a_transparent_colour_of_an_rgb_png_shows_white() -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    assert colour_at(image_of(file_of(image, transparency=(1, 2, 3)), MOST)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert colour_at(image_of(file_of(grey), MOST)) == (128, 128, 128)


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 255)])
def test_black_and_white_and_grey_become_rgb(mode: str, value: int) -> None:
    assert colour_at(image_of(file_of(Image.new(mode, (4, 4), value)), MOST)) == (255, 255, 255)


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    r, g, b = colour_at(image_of(file_of(red, "JPEG"), MOST))
    assert r > 240 and g < 15 and b < 15


def test_a_photo_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = image_of(file_of(Image.new("RGB", (40, 20)), "JPEG", exif=exif), MOST)
    assert upright.size == (20, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_known_before_decoding_however_the_camera_was_held(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(Image.effect_noise((40, 20), 50).convert("RGB"), "JPEG", exif=exif)
    opened = OpenedImage(data, ImageSizeLimits(MOST, MOST, 4000, True))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert opened.size == upright.size
    assert np.array_equal(np.asarray(pixels_of(opened)), np.asarray(upright))


def test_a_longer_side_is_made_to_fit() -> None:
    assert image_of(file_of(Image.new("RGB", (400, 100))), MOST, side=200).size == (200, 50)
    assert image_of(file_of(Image.new("RGB", (200, 100))), MOST, side=200).size == (200, 100)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("width", "wanted"), [(400, (200, 100)), (384, (192, 96)), (790, (198, 99)), (300, (200, 100))]
)
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(
    orientation: int, width: int, wanted: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.linear_gradient("L").resize((width, width // 2)).convert("RGB")
    data = file_of(image, "JPEG", quality=95, exif=exif)
    opened = OpenedImage(data, ImageSizeLimits(MOST, MOST, 200, True))
    pixels = pixels_of(opened)
    assert pixels.size == opened.size == (wanted if orientation == 1 else wanted[::-1])
    exact = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(pixels.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(pixels).astype(int) - np.asarray(exact)).max() <= 8


def test_a_longer_side_is_refused_where_the_setting_says_so() -> None:
    with pytest.raises(BadImage, match="400 x 100"):
        image_of(file_of(Image.new("RGB", (400, 100))), MOST, side=200, shrinks=False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_every_promised_format_is_read(kind: str) -> None:
    assert image_of(file_of(Image.new("RGB", (9, 7)), kind), MOST).size == (9, 7)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    header_only = file_of(Image.new("RGB", (100, 100)))[:60]
    with pytest.raises(BadImage, match="100 x 100"):
        image_of(header_only, 9_999)


def test_base64_is_read_in_every_way_people_write_it() -> None:
    data = bytes(range(256)) * 3 + b"\xfb\xff"
    plain, web = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    for text in (plain, web, plain.rstrip("="), base64.encodebytes(data).decode(), "data:image/PNG;base64," + web):
        assert bytes_of_base64(text, MOST) == data


def test_a_file_one_byte_too_large_is_refused_and_one_that_fits_is_not() -> None:
    assert len(bytes_of_base64(base64.b64encode(bytes(100)).decode(), 100)) == 100
    with pytest.raises(TooLarge):
        bytes_of_base64(base64.b64encode(bytes(101)).decode(), 100)
