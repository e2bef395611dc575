"""AVIF's and HEIC's structure: boxes within boxes, of which the primary item's size and turns are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway.images.image_file import Budget, ImageFile, Undecodable

MOST_BOXES = 4096  # a phone's photo has some 200, one of each tile's properties among them
MOST_ITEMS = 1024  # libheif's own bound is 1000; 48 megapixels in tiles of 512 x 512 are 190
MOST_ASSOCIATIONS = 16_384
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_MOST_BRANDS_BYTES = 256
_PIXEL_BYTES = {"AVIF": 9, "HEIF": 6}
"""What a pixel takes at the most, measured: planes of the decoder, rows of red, green and blue, and Pillow's copy."""
_TURNED = (1, 3)  # quarters of a circle, against the clock
_ORIENTATIONS = {0: (1, 4, 2), 1: (8, 5, 7), 2: (3, 2, 4), 3: (6, 7, 5)}
"""EXIF's orientation for quarters against the clock, then: no mirror, top and bottom, left and right exchanged."""


def is_isobmff(data: bytes) -> bool:
    return kind_of(data) is not None


def kind_of(data: bytes) -> str | None:
    """AVIF or HEIF by the brands in the first box; None for anything else, films among them."""
    if data[4:8] != b"ftyp":
        return None
    brands = data[8 : min(int.from_bytes(data[:4], "big"), _MOST_BRANDS_BYTES)]
    listed = [brands[i : i + 4] for i in range(0, len(brands), 4) if i != 4]  # the second is a version
    if any(brand in _AVIF for brand in listed):
        return "AVIF"
    return "HEIF" if any(brand in _HEIC for brand in listed) else None


def read_isobmff(data: bytes) -> ImageFile:
    """The structure of an AVIF or HEIC; raises Undecodable and Refused.

    The file stays whole: its boxes name places in it. What a primary item made of tiles consists of, its decoder
    reads within its own bounds and the process's.
    """
    kind = kind_of(data) or ""
    walk = _Walk(data)
    meta = walk.find(0, len(data), b"meta")
    begin, end = meta[0] + 4, meta[1]
    primary = _primary(data, *walk.find(begin, end, b"pitm"))
    _check_items(data, walk, begin, end)
    properties = walk.find(begin, end, b"iprp")
    boxes = list(walk.boxes(*walk.find(*properties, b"ipco")))
    width = height = quarters = mirror = 0
    for index in _associated(data, walk, properties, primary):
        if not 0 < index <= len(boxes):
            continue
        name, at, _ = boxes[index - 1]
        if name == b"ispe":
            width, height = struct.unpack_from(">II", data, at + 4)
        elif name == b"clap" and kind == "HEIF":  # AVIF's decoder leaves it to whoever asked
            width, height = _cropped(data, at)
        elif name == b"irot":
            quarters = data[at] & 3
        elif name == b"imir":
            mirror = 1 + (data[at] & 1)
    if kind == "HEIF":  # its decoder turns by itself
        width, height = (height, width) if quarters in _TURNED else (width, height)
    orientation = _ORIENTATIONS[quarters][mirror] if kind == "AVIF" else 1
    return ImageFile(kind, width, height, (memoryview(data),), orientation, width * height * _PIXEL_BYTES[kind])


class _Walk:
    """Goes over boxes, a bounded number of them in one file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._boxes = Budget(MOST_BOXES, "boxes")

    def boxes(self, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, begin and end of the content of each box between two places; raises Undecodable for a broken one."""
        while begin + 8 <= end:
            self._boxes.spend()
            length, name = struct.unpack_from(">I4s", self._data, begin)
            head = 8
            if length == 1:
                (length,) = struct.unpack_from(">Q", self._data, begin + 8)
                head = 16
            stop = end if length == 0 else begin + length
            if stop < begin + head or stop > end:
                if name == b"mdat":
                    return  # the last one, cut short: its decoder knows whether pixels are missing
                raise Undecodable
            yield name, begin + head, stop
            begin = stop

    def find(self, begin: int, end: int, wanted: bytes) -> tuple[int, int]:
        for name, at, stop in self.boxes(begin, end):
            if name == wanted:
                return at, stop
        raise Undecodable


def _primary(data: bytes, at: int, end: int) -> int:
    form = ">I" if data[at] else ">H"
    if at + 4 + struct.calcsize(form) > end:
        raise Undecodable
    return int(struct.unpack_from(form, data, at + 4)[0])


def _check_items(data: bytes, walk: _Walk, begin: int, end: int) -> None:
    for name, at, _ in walk.boxes(begin, end):
        if name in (b"iinf", b"iloc"):
            place = at + 4 if name == b"iinf" else at + 6
            form = ">I" if data[at] > (0 if name == b"iinf" else 1) else ">H"
            Budget(MOST_ITEMS, "parts").spend(struct.unpack_from(form, data, place)[0])


def _associated(data: bytes, walk: _Walk, properties: tuple[int, int], item: int) -> list[int]:
    """The numbers of an item's properties in the order in which they apply."""
    budget = Budget(MOST_ASSOCIATIONS, "properties of its parts")
    for name, at, end in walk.boxes(*properties):
        if name != b"ipma":
            continue
        version, flags = data[at], data[at + 3]
        (count,) = struct.unpack_from(">I", data, at + 4)
        at += 8
        for _ in range(count):
            form = ">IB" if version else ">HB"
            found, listed = struct.unpack_from(form, data, at)
            at += struct.calcsize(form)
            wide = 2 if flags & 1 else 1
            budget.spend(1 + listed)
            if at + listed * wide > end:
                raise Undecodable
            if found == item:
                mask = 0x7FFF if wide == 2 else 0x7F
                return [int.from_bytes(data[at + i * wide : at + (i + 1) * wide], "big") & mask for i in range(listed)]
            at += listed * wide
    raise Undecodable


def _cropped(data: bytes, at: int) -> tuple[int, int]:
    across, by_across, down, by_down = struct.unpack_from(">4I", data, at)
    if not by_across or not by_down:
        raise Undecodable
    return across // by_across, down // by_down
