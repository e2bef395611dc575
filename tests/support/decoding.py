"""Decodes images for tests as a decoding process would, and as Pillow alone does."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageOps

from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.images.pixels import final_pixels

MOST_BYTES = 15 << 20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF")
_WHITE = (255, 255, 255, 255)


def limits(max_pixels: int = 50_000_000, max_side: int = 4000, shrinks: bool = True) -> ImageSizeLimits:
    return ImageSizeLimits(MOST_BYTES, max_pixels, max_side, shrinks)


def pixels_of(opened: OpenedImage) -> Image.Image:
    """The image at its own size, decoded in this process."""
    return final_pixels(io.BytesIO(b"".join(opened.file.parts)), opened.job(opened.size))


def pillows_pixels(data: bytes, max_side: int = 4000) -> Image.Image:
    """What the whole file becomes by Pillow's own reading, conversion and resizing, with nothing taken out of it."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    orientation = _orientation(image)
    width, height = image.size[::-1] if orientation >= 5 else image.size
    size = width, height
    if max(size) > max_side:
        longer = max(size)
        scales = [s for s in (2, 4, 8) if 0.9 * max_side <= math.ceil(longer / s) <= max_side]
        scale = scales[0] if scales and image.format == "JPEG" else longer / max_side
        size = max(1, math.ceil(width / scale)), max(1, math.ceil(height / scale))
        image.draft(None, size[::-1] if orientation >= 5 else size)
    image.load()
    flat = _flat(image)
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        flat.info = {}
        flat._exif = exif  # type: ignore[attr-defined]
        flat = ImageOps.exif_transpose(flat)
    return flat if flat.size == size else flat.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _flat(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")
