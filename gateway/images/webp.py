"""WebP's structure: its chunks, of which the image or its first frame are kept."""

from __future__ import annotations

import struct

from gateway.images.image_file import Budget, ImageFile, Undecodable
from gateway.images.tiff import orientation_of

MOST_CHUNKS = 2048  # a frame is one
_MOST_NOTE_BYTES = 1 << 16
_RIFF_BYTES = 12
_EXTENDED = b"VP8X"
_IMAGES = (b"VP8 ", b"VP8L")
_FRAME = b"ANMF"
_PIXEL_BYTES = 12
"""What libwebp's canvas, the frame before and the frame handed out take of a pixel."""
LARGE_STILL_PIXELS = 12_000_000
"""A still image of more pixels is decoded straight into the rows that are handed out."""
_ANIMATED, _HAS_ALPHA = 0x02, 0x10
_LOSSLESS = b"VP8L"
_LOSSLESS_BYTES = 4  # a pixel's, which its decoder keeps until the end


def read_webp(data: bytes) -> ImageFile:
    """The structure of a WebP; raises Undecodable and Refused."""
    view, at, end = memoryview(data), _RIFF_BYTES, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    chunks, kept, has_image = Budget(MOST_CHUNKS, "chunks"), list[memoryview](), False
    notes: dict[bytes, bytes] = {}
    while at + 8 <= end:
        chunks.spend()
        name, length = struct.unpack_from("<4sI", data, at)
        chunk = view[at : at + 8 + length + length % 2]
        if name in (_EXTENDED, b"ANIM", b"ALPH") or (name in (*_IMAGES, _FRAME) and not has_image):
            kept.append(chunk)
            has_image |= name in (*_IMAGES, _FRAME)
        elif name in (b"EXIF", b"XMP "):
            notes.setdefault(name, bytes(chunk[8 : 8 + min(length, _MOST_NOTE_BYTES)]))
        at += 8 + length + length % 2
    if not has_image:
        raise Undecodable
    width, height = _size(kept[0])
    riff = b"RIFF" + struct.pack("<I", 4 + sum(map(len, kept))) + b"WEBP"
    is_large = width * height > LARGE_STILL_PIXELS and is_still(kept[0])
    pixel_bytes = _still_bytes(kept) if is_large else _PIXEL_BYTES
    orientation = orientation_of(notes.get(b"EXIF", b""), notes.get(b"XMP ", b""))
    return ImageFile("WEBP", width, height, (riff, *kept), orientation, width * height * pixel_bytes)


def is_still(first: memoryview | bytes) -> bool:
    """Whether the first chunk speaks of one image."""
    return bytes(first[:4]) != _EXTENDED or not first[8] & _ANIMATED


def has_alpha(data: bytes) -> bool:
    """Whether a file's first chunk says that pixels may be clear."""
    if data[_RIFF_BYTES : _RIFF_BYTES + 4] == _EXTENDED:
        return bool(data[_RIFF_BYTES + 8] & _HAS_ALPHA)
    is_lossless = data[_RIFF_BYTES : _RIFF_BYTES + 4] == _LOSSLESS
    return is_lossless and bool(data[_RIFF_BYTES + 12] & _HAS_ALPHA)


def _still_bytes(kept: list[memoryview]) -> int:
    """What a pixel takes: the rows handed out, and what a lossless image or a clear one needs beside them."""
    whole = b"".join((bytes(_RIFF_BYTES), *(bytes(chunk[:16]) for chunk in kept)))
    is_lossless = any(bytes(chunk[:4]) == _LOSSLESS for chunk in kept)
    return (4 + (not is_lossless) if has_alpha(whole) else 3) + _LOSSLESS_BYTES * is_lossless


def _size(first: memoryview) -> tuple[int, int]:
    """Width and height from the first chunk, which is the canvas where there is one."""
    name, content = bytes(first[:4]), bytes(first[8:18])
    if name == _EXTENDED:
        sides = int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1
    elif name == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":
        across, down = struct.unpack_from("<HH", content, 6)
        sides = across & 0x3FFF, down & 0x3FFF
    elif name == b"VP8L" and content[0] == 0x2F:
        (bits,) = struct.unpack_from("<I", content, 1)
        sides = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise Undecodable
    return sides
