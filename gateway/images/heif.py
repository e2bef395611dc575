"""HEIC photos by libheif, which is there only where an operator has installed it: rows of pixels as Pillow's images."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

from PIL import Image

_LIBRARY = "pillow_heif"


def can_read_heif() -> bool:
    """Whether the library is installed; nothing of it is loaded."""
    return find_spec(_LIBRARY) is not None


class DecodedHeif:
    """A HEIC photo's first image, upright, as libheif hands it out: never copied as a whole."""

    def __init__(self, file: IO[bytes]) -> None:
        """Decodes; raises what libheif's errors become in Python."""
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        for name in ("THUMBNAILS", "DEPTH_IMAGES", "AUX_IMAGES"):
            setattr(pillow_heif.options, name, False)
        pillow_heif.options.DECODE_THREADS = 1
        open_heif: Any = pillow_heif.HeifFile
        found = open_heif(file, convert_hdr_to_8bit=True, remove_stride=False)
        self._image: Any = found[found.primary_index]
        self._image.load()
        self.size: tuple[int, int] = self._image.size

    def bands(self, rows: int) -> Iterator[Image.Image]:
        """The image from top to bottom, `rows` rows at a time."""
        width, height = self.size
        mode, data, stride = self._image.mode, memoryview(self._image.data), self._image.stride
        for top in range(0, height, rows):
            count = min(rows, height - top)
            band: Any = data[top * stride : (top + count) * stride]
            yield Image.frombuffer(mode, (width, count), band, "raw", mode, stride, 1)
