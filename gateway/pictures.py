"""The picture in a request: base64 becomes bytes, and bytes become RGB pixels, whatever the bytes are."""

from __future__ import annotations

import io
import re

import numpy as np
import pybase64
from PIL import Image, ImageOps

from glmserve.errors import BadImage, TooLarge

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
_WHITE = (255, 255, 255, 255)


def bytes_of_base64(text: str, max_bytes: int) -> bytes:
    """The file in a base64 string or data URL; either alphabet, line breaks and missing padding are fine."""
    start = 0
    if text[:5].lower() == "data:":
        head = _DATA_URL.match(text)
        if not head:
            raise BadImage("The field image must be base64, or a URL that begins with data:image/...;base64,", "image")
        start = head.end()
    packed = "".join(text[start:].split()).translate(_URL_SAFE).rstrip("=")
    if len(packed) * 3 // 4 > max_bytes:
        raise TooLarge(f"The image holds more than {max_bytes} bytes.", "image")
    try:
        data = pybase64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except ValueError:
        raise BadImage("The field image is not valid base64.", "image") from None
    if not data:
        raise BadImage("The field image is empty.", "image")
    return data


def picture_of(data: bytes, max_pixels: int) -> Image.Image:
    """The upright RGB picture in a file, its first frame if it moves; raises BadImage for anything else.

    The header's size is checked before a pixel is decoded: a file of 2 kB can ask for gigabytes.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise BadImage(
                f"The image has {image.width} x {image.height} pixels; at most {max_pixels} in all are accepted.",
                "image",
            )
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # hostile bytes draw almost any exception out of Pillow's readers
        raise BadImage(
            "The image cannot be decoded: it must be a whole JPEG, PNG, WebP, BMP or GIF picture.", "image"
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion clips instead of scaling
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")
