"""BMP's structure: its header, behind which stand pixels and nothing else."""

from __future__ import annotations

import struct

from gateway.images.image_file import ImageFile, Undecodable

_SHORT_HEADER = 12
_HEADERS = (40, 52, 56, 64, 108, 124)
_TOP_DOWN = 0xFF  # the highest byte of a height below 0


def read_bmp(data: bytes) -> ImageFile:
    """The structure of a BMP; raises Undecodable."""
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == _SHORT_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
    elif header_bytes in _HEADERS:
        width, height = struct.unpack_from("<II", data, 18)
        height = (1 << 32) - height if data[25] == _TOP_DOWN else height
    else:
        raise Undecodable
    return ImageFile("BMP", width, height, (memoryview(data),))
