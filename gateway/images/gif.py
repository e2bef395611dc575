"""GIF's structure: the extensions before the first frame; what stands after it is never looked at."""

from __future__ import annotations

import struct

from gateway.images.image_file import Budget, ImageFile, Undecodable

MOST_BLOCKS = 16_384  # 4 MB of comments, as encoders write them
_HEADER_BYTES = 13
_HAS_PALETTE, _PALETTE_BITS = 0x80, 7
_EXTENSION, _IMAGE, _END = b"!,;"
_CONTROL = 0xF9
_IS_TRANSPARENT = 1


def read_gif(data: bytes) -> ImageFile:
    """The structure of a GIF; raises Undecodable and Refused."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    first = at = _HEADER_BYTES + _palette_bytes(flags)
    blocks, control = Budget(MOST_BLOCKS, "blocks before its first frame"), b""
    while data[at] != _IMAGE:
        blocks.spend()
        if data[at] == _END:
            raise Undecodable
        if data[at] != _EXTENSION:
            at += 1  # readers pass over what is neither
            continue
        label, at = data[at + 1], at + 2
        if label == _CONTROL and data[at] and data[at + 1] & _IS_TRANSPARENT:
            control = bytes((_EXTENSION, _CONTROL, 4, _IS_TRANSPARENT, 0, 0, data[at + 4], 0))
        while data[at]:
            blocks.spend()
            at += 1 + data[at]
        at += 1
    left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
    view = memoryview(data)
    return ImageFile("GIF", max(width, left + across), max(height, top + down), (view[:first], control, view[at:]))


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & _PALETTE_BITS) + 1) if flags & _HAS_PALETTE else 0
