"""EXIF's orientation, and single numbers out of the TIFF directories that EXIF and multi-picture headers are."""

from __future__ import annotations

import re
import struct

from gateway.images.image_file import UPRIGHT

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_MOST_ENTRIES = 512
_MOST_XMP_BYTES = 1 << 16
_NUMBER_CODES = {3: "H", 4: "I", 8: "h", 9: "i"}  # SHORT, LONG, SSHORT, SLONG
_ENTRY_BYTES = 12
_INLINE_BYTES = 4


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """How the camera was held, 1 to 8; `xmp` is asked where EXIF is there and does not say."""
    if not exif:
        return UPRIGHT
    try:
        value = tiff_number(exif.removeprefix(_EXIF_PREFIX), _ORIENTATION_TAG)
    except (struct.error, ValueError):  # a broken note on an image does not make it a broken image
        return UPRIGHT
    if value is None:
        found = _XMP_ORIENTATION.search(xmp, 0, _MOST_XMP_BYTES)
        value = int(found[1]) if found else UPRIGHT
    return value


def tiff_number(tiff: bytes, tag: int) -> int | None:
    """The number that a tag of the first directory has; raises ValueError or struct.error if there is no directory.

    Of a directory with more than 512 entries only the first 512 are read.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise ValueError("no byte order")
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    found = None
    for at in range(start + 2, start + 2 + min(count, _MOST_ENTRIES) * _ENTRY_BYTES, _ENTRY_BYTES):
        name, kind, values = struct.unpack_from(f"{order}HHI", tiff, at)
        if name == tag and kind in _NUMBER_CODES and values:
            code = f"{order}{_NUMBER_CODES[kind]}"
            is_inline = values * struct.calcsize(code) <= _INLINE_BYTES
            place = at + 8 if is_inline else struct.unpack_from(f"{order}I", tiff, at + 8)[0]
            (found,) = struct.unpack_from(code, tiff, place)
    return found
