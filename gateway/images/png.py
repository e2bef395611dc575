"""PNG's structure: the chunks up to the end of the image data; what stands after it is never looked at."""

from __future__ import annotations

import struct
import zlib

from gateway.images.image_file import Budget, ImageFile, Undecodable, too_many
from gateway.images.tiff import orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_NOTES = 2048
MOST_DATA_CHUNKS = 10_000  # 15 MB in the 8 kB that most encoders write at a time are 2,000
MOST_NOTE_BYTES = 1 << 16
_MOST_PALETTE_BYTES = 3 * 256
_TRANSPARENCIES = {0: (2,), 2: (6,), 3: range(1, 257)}
"""Bytes that a clear colour or a palette's transparency has, by the kind of colours."""
_COLOURS = (2, 4, 6)  # of more than one channel
_WITH_PALETTE = 3
_PIXEL_BYTES = 5  # Pillow's 4, and what becomes of them
_FRAME_BYTES = 12  # length and name before a chunk, checksum after it
_XMP = b"XML:com.adobe.xmp\0"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_frame = struct.Struct(">I4s").unpack_from


def read_png(data: bytes) -> ImageFile:
    """The structure of a PNG; raises Undecodable and Refused."""
    length, name = _frame(data, len(SIGNATURE))
    if name != b"IHDR" or length != 13:
        raise Undecodable
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    view, at = memoryview(data), len(SIGNATURE) + _FRAME_BYTES + length
    header, exif, xmp, palette, transparency = view[:at], b"", b"", view[:0], view[:0]
    notes = Budget(MOST_NOTES, "chunks before its pixels")
    while True:
        length, name = _frame(data, at)
        if name == b"IDAT":
            break
        notes.spend()
        chunk, content = view[at : at + _FRAME_BYTES + length], view[at + 8 : at + 8 + min(length, MOST_NOTE_BYTES)]
        if len(chunk) != _FRAME_BYTES + length or name in (b"IHDR", b"IEND"):
            raise Undecodable
        if name == b"PLTE" and colour == _WITH_PALETTE:  # a mere suggestion elsewhere
            palette = _at_most(chunk, _MOST_PALETTE_BYTES)
        elif name == b"tRNS":
            transparency = chunk if _is_sound(chunk) and length in _TRANSPARENCIES.get(colour, ()) else view[:0]
        elif name == b"eXIf":
            exif = b"Exif\0\0" + content
        elif name == b"iTXt" and content[: len(_XMP)] == _XMP:
            xmp = bytes(content)
        at += len(chunk)
    end = _end_of_data(data, at)
    tail = (view[at:end], _END) if end < len(data) else (view[at:],)
    is_whole_in_memory = colour in _COLOURS and (interlaced or (depth > 8 and len(transparency)))
    return ImageFile(
        "PNG",
        width,
        height,
        (header, palette, transparency, *tail),
        orientation_of(exif, xmp),
        width * height * _PIXEL_BYTES if is_whole_in_memory else 0,
    )


def _end_of_data(data: bytes, at: int) -> int:
    for _ in range(MOST_DATA_CHUNKS):
        if at + _FRAME_BYTES > len(data):
            return len(data)
        length, name = _frame(data, at)
        if name != b"IDAT":
            return at
        at += _FRAME_BYTES + length
    raise too_many(MOST_DATA_CHUNKS, "chunks of pixels")


def _is_sound(chunk: memoryview) -> bool:
    """Whether the checksum fits; where it does not, a chunk that an image can do without is dropped."""
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _at_most(chunk: memoryview, content_bytes: int) -> memoryview:
    if len(chunk) > _FRAME_BYTES + content_bytes:
        raise Undecodable
    return chunk
