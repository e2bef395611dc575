"""The picture in a request: base64 becomes bytes, and bytes become RGB pixels, whatever the bytes are."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass

import numpy as np
import pybase64
from PIL import Image

from glmserve.errors import BadImage, TooLarge

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")
_WHITE = (255, 255, 255, 255)
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_JPEG_SCALES = (2, 4, 8)
_CLOSE = 0.9
_PADDING = 2  # bytes that padding makes a file look larger than it is


@dataclass(frozen=True)
class ImageSizeLimits:
    """How large a picture may be: file, pixels, and the longer side, beyond which it is made smaller or refused."""

    max_bytes: int
    max_pixels: int
    max_side: int
    shrinks: bool


def bytes_of_base64(text: str, max_bytes: int, field: str = "image") -> bytes:
    """The file in a base64 string or data URL; either alphabet, line breaks and missing padding are fine."""
    start = 0
    if text[:5].lower() == "data:":
        head = _DATA_URL.match(text)
        if not head:
            raise BadImage(f"The field {field} must be base64, or a URL that begins with data:image/...;base64,", field)
        start = head.end()
    packed = text[start:]
    data = _strictly(packed) if len(packed) * 3 // 4 <= max_bytes + _PADDING else None
    if data is None:
        data = _leniently(packed, max_bytes, field)
    if len(data) > max_bytes:
        raise _too_large(max_bytes, field)
    if not data:
        raise BadImage(f"The field {field} is empty.", field)
    return data


def _strictly(packed: str) -> bytes | None:
    """What programs write, in one pass; None for anything else."""
    try:
        return pybase64.b64decode(packed, validate=True)
    except ValueError:
        return None


def _leniently(packed: str, max_bytes: int, field: str) -> bytes:
    packed = "".join(packed.split()).translate(_URL_SAFE).rstrip("=")
    if len(packed) * 3 // 4 > max_bytes:
        raise _too_large(max_bytes, field)
    try:
        return pybase64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except ValueError:
        raise BadImage(f"The field {field} is not valid base64.", field) from None


def _too_large(max_bytes: int, field: str) -> TooLarge:
    return TooLarge(f"The image holds more than {max_bytes} bytes.", field)


class OpenedImage:
    """A picture of which only the header was read; `size` is the width and height that `pixels` will have.

    `field` is where in the request it stood.
    """

    def __init__(self, data: bytes, rules: ImageSizeLimits, field: str = "image") -> None:
        """Raises BadImage for bytes that are no picture, and for one that is too large.

        The size is checked before a pixel is decoded: a file of 2 kB can ask for gigabytes.
        """
        self.field = field
        try:
            self._image = Image.open(io.BytesIO(data), formats=FORMATS)
            self._orientation = _orientation(self._image)
        except Exception as error:  # hostile bytes draw almost any exception out of Pillow's readers
            raise self._undecodable() from error
        width, height = self._image.size
        self.size = (height, width) if self._orientation in _LYING else (width, height)
        if width * height > rules.max_pixels:
            raise BadImage(
                f"The image has {width} x {height} pixels; at most {rules.max_pixels} in all are accepted.", field
            )
        if max(self.size) > rules.max_side:
            self._fit(rules)

    def pixels(self) -> Image.Image:
        """The upright RGB picture, its first frame if it moves; raises BadImage when the data is not whole."""
        try:
            self._image.load()
            image = _as_rgb(self._image)
        except MemoryError:
            raise
        except Exception as error:
            raise self._undecodable() from error
        turn = _UPRIGHT.get(self._orientation)
        image = image if turn is None else image.transpose(turn)
        return image if image.size == self.size else image.resize(self.size, Image.Resampling.BICUBIC, reducing_gap=3)

    def _fit(self, rules: ImageSizeLimits) -> None:
        width, height = self.size
        if not rules.shrinks:
            raise BadImage(
                f"The image is {width} x {height} pixels; its longer side may have at most {rules.max_side}.",
                self.field,
            )
        scale = self._jpeg_scale(rules.max_side) or max(width, height) / rules.max_side
        self.size = max(1, math.ceil(width / scale)), max(1, math.ceil(height / scale))
        file_size = self.size[::-1] if self._orientation in _LYING else self.size
        self._image.draft(None, file_size)  # a JPEG is decoded no larger than this takes; others pass over it

    def _jpeg_scale(self, max_side: int) -> int:
        """By how much a JPEG's own reduced decoding gets close below the limit, 0 where it does not.

        It leaves out coefficients instead of computing pixels that are thrown away: a third of the time.
        """
        if self._image.format != "JPEG":
            return 0
        longer = max(self.size)
        return next((s for s in _JPEG_SCALES if _CLOSE * max_side <= math.ceil(longer / s) <= max_side), 0)

    def _undecodable(self) -> BadImage:
        return BadImage(
            "The image cannot be decoded: it must be a whole JPEG, PNG, WebP, BMP or GIF picture.", self.field
        )


def _orientation(image: Image.Image) -> int:
    """How the camera was held, as far as the header says: asking further would decode the picture."""
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken note on a picture does not make it a broken picture
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion clips instead of scaling
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
