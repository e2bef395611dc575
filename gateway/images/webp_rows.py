"""A large still WebP straight from libwebp: Pillow decodes every WebP as a film, in four times the memory."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from gateway.images.webp import has_alpha

_LIBRARY = re.compile(r"\S*/libwebp[-.][^/\s]*$", re.MULTILINE)
_MAJOR = ".so.7"  # since 2016; these two functions are older still
_FUNCTIONS = {"RGB": "WebPDecodeRGBInto", "RGBA": "WebPDecodeRGBAInto"}


class DecodedWebp:
    """Its pixels as rows of bytes, never copied as a whole."""

    def __init__(self, data: bytes, size: tuple[int, int]) -> None:
        """Raises OSError where Pillow's libwebp cannot be called, and ValueError for a file that is not whole."""
        self.size = size
        self._mode = "RGBA" if has_alpha(data) else "RGB"
        self._stride = size[0] * len(self._mode)
        decode = getattr(_library(), _FUNCTIONS[self._mode])
        decode.restype = ctypes.c_void_p
        decode.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._pixels = bytearray(self._stride * size[1])
        place = (ctypes.c_char * len(self._pixels)).from_buffer(self._pixels)
        if not decode(data, len(data), ctypes.addressof(place), len(self._pixels), self._stride):
            raise ValueError("not whole, or of another size")

    def bands(self, rows: int) -> Iterator[Image.Image]:
        """The image from top to bottom, `rows` rows at a time."""
        width, height = self.size
        view: Any = memoryview(self._pixels)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            band = view[top * self._stride : (top + count) * self._stride]
            yield Image.frombuffer(self._mode, (width, count), band, "raw", self._mode, self._stride, 1)


def _library() -> ctypes.CDLL:
    """The libwebp that Pillow itself has loaded, wherever its wheel keeps it."""
    found = _LIBRARY.search(Path("/proc/self/maps").read_text("utf-8"))
    if found is None or _MAJOR not in found[0]:
        raise OSError("no libwebp of a known kind")
    return ctypes.CDLL(found[0])
