"""A large PNG in bands of rows: Pillow decodes each as a small PNG of its own, so that the whole is never in memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: ("RGB", 3), 4: ("LA", 2), 6: ("RGBA", 4)}
"""Colour types of which Pillow keeps 4 bytes a pixel and gives back the bytes that were in the file."""
_DEEP = 16
_PIECE_BYTES = 1 << 20
_NO_FILTER = b"\0"


def png_bands(image: Image.Image, file: IO[bytes], rows: int) -> Iterator[Image.Image] | None:
    """Bands of `rows` rows of an opened image; None where it has to be decoded whole.

    A row's filter may lean on the row above: each band begins with the last row of the one before, unfiltered. Of 16
    bits Pillow keeps the upper 8. A filter knows no bits, only the bytes in the same place of other samples, so upper
    bytes alone are a PNG of 8 bits.
    """
    if image.format != "PNG":
        return None
    file.seek(len(_SIGNATURE) + 8)
    width, height, depth, colour, _, _, interlaced, _ = struct.unpack(">IIBBBBBI", file.read(17))
    if depth not in (8, _DEEP) or colour not in _CHANNELS or interlaced:
        return None
    inflated = _Inflated(file)
    if depth == _DEEP and inflated.transparency:  # a clear colour of 16 bits
        return None
    return _bands(inflated, (width, height), depth, colour, rows)


def _bands(inflated: _Inflated, size: tuple[int, int], depth: int, colour: int, rows: int) -> Iterator[Image.Image]:
    (width, height), (mode, channels) = size, _CHANNELS[colour]
    row_bytes = 1 + width * channels * depth // 8
    above = b""
    transparency = inflated.transparency
    for top in range(0, height, rows):
        count = min(rows, height - top)
        body = inflated.read(count * row_bytes)
        body = above + (_upper_bytes(body, row_bytes) if depth == _DEEP else body)
        has_above = bool(above)
        band = Image.open(io.BytesIO(_png(width, count + has_above, colour, transparency, body)), formats=("PNG",))
        band.load()
        lowest = band.crop((0, band.height - 1, width, band.height))
        above = _NO_FILTER + lowest.tobytes("raw", mode)
        yield band.crop((0, 1, width, band.height)) if has_above else band


def _upper_bytes(rows: bytes, row_bytes: int) -> bytes:
    """Each row's filter and the first of every two bytes behind it."""
    pieces: list[bytes] = []
    for at in range(0, len(rows), row_bytes):
        pieces += (rows[at : at + 1], rows[at + 1 : at + row_bytes : 2])
    return b"".join(pieces)


class _Inflated:
    """The rows of a PNG as they are compressed into its IDAT chunks, filters and all."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()
        self._left = 0  # of the IDAT chunk that is being read
        self.transparency = b""
        while True:
            length, name = self._frame()
            if name == b"IDAT":
                self._left = length
                return
            content = file.read(length + 4)
            if name == b"tRNS":
                self.transparency = _chunk(b"tRNS", content[:length])

    def read(self, count: int) -> bytes:
        rows = bytearray()
        while len(rows) < count:
            packed = self._inflate.unconsumed_tail or self._packed()
            rows += self._inflate.decompress(packed, count - len(rows))
            if self._inflate.eof and len(rows) < count:
                raise EOFError
        return bytes(rows)

    def _packed(self) -> bytes:
        while not self._left:
            self._file.seek(4, io.SEEK_CUR)  # a checksum, which Pillow does not look at either
            self._left, name = self._frame()
            if name != b"IDAT":
                raise EOFError
        piece = self._file.read(min(self._left, _PIECE_BYTES))
        if not piece:
            raise EOFError
        self._left -= len(piece)
        return piece

    def _frame(self) -> tuple[int, bytes]:
        length, name = struct.unpack(">I4s", self._file.read(8))
        return length, name


def _png(width: int, height: int, colour: int, transparency: bytes, body: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(body, 0))
    return b"".join((_SIGNATURE, header, transparency, data, _chunk(b"IEND", b"")))


def _chunk(name: bytes, content: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", zlib.crc32(name + content))))
