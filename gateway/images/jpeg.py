"""JPEG's structure: segments up to the first scan, and every scan of a file that has several."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from gateway.images.image_file import Budget, ImageFile, Refused, Undecodable
from gateway.images.tiff import orientation_of, tiff_number

MOST_SEGMENTS = 1024  # 15 MB in the largest segments are 240
MOST_SCANS = 64  # encoders write 1 or 10, the most frugal ones some 20
MOST_TABLE_BYTES = 1 << 16  # four quantisation and eight Huffman tables are 3 kB
MOST_FILLER_BYTES = 1 << 16
MOST_STUFFED_BYTES = 1 << 12
"""In 128 kB of a scan: coded data has 500, and every one of them takes a step to pass."""
MOST_SCAN_WORK = 6
"""How often the scans may visit all coefficients; an ordinary progressive file visits each three to four times."""
SMALL_SCAN_WORK = 100_000_000
"""Visits that take a tenth of a second, and that any file may ask for."""

END = b"\xff\xd9"
FILLED_UP = bytes(i * i * 37 % 251 for i in range(512)) + END
"""Stands for the end that a file lacks: any blocks that lack too become what these bits make of them."""

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xff]")  # within a scan: neither a stuffed byte nor a restart
_NOT_FILLER = re.compile(rb"[^\xff]")
_WINDOW = 1 << 17
_DHT, _JPG, _DAC = 0xC4, 0xC8, 0xCC
_SOI, _EOI, _SOS, _DQT, _DNL, _DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD
_APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_TABLES = (_DHT, _DAC, _DQT, _DRI)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_ARITHMETIC_WORK = 8  # a coefficient takes that many times as long as with Huffman codes
_BLOCK = 64  # coefficients
_BLOCK_BYTES = 2 * _BLOCK
_LEAST_BAND = 8  # coefficients' time that a block takes in a scan of fewer
_EXIF, _XMP, _JFIF, _ADOBE, _SEVERAL = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"JFIF", b"Adobe", b"MPF\0"
_GAIN_MAP = b' hdrgm:Version="'
_NUMBER_OF_IMAGES = 0xB001


@dataclass
class _Header:
    """What stood before the first scan."""

    kept: list[memoryview] = field(default_factory=list)
    frame: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    blocks: dict[int, int] = field(default_factory=dict)  # by a component's name
    all_blocks: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    several: bytes = b""
    table_bytes: Budget = field(default_factory=lambda: Budget(MOST_TABLE_BYTES, "bytes of tables"))


def read_jpeg(data: bytes) -> ImageFile:
    """The structure of a JPEG; raises Undecodable and Refused."""
    view, header = memoryview(data), _Header()
    walk = _Walk(data)
    header.kept.append(view[:2])
    while True:
        marker, begin, end = walk.segment()
        if marker == _SOS:
            break
        _read_segment(header, marker, view[begin:end])
    if not header.frame:
        raise Undecodable
    is_one_scan = header.frame not in _PROGRESSIVE and data[begin + 4] == header.components
    if not is_one_scan:
        _check_scans(header, walk, begin, end)
    has_end = data.rfind(END, end) >= 0 or walk.breaks_off
    return ImageFile(
        "JPEG",
        header.width,
        header.height,
        (*header.kept, view[begin:]) if has_end else (*header.kept, view[begin:], FILLED_UP),
        orientation_of(header.exif, header.xmp),
        0 if is_one_scan else header.all_blocks * _BLOCK_BYTES,
        scales=not _holds_several(header),
    )


class _Walk:
    """Goes from marker to marker, over filler between them and, within scans, over what is coded."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 2
        self.breaks_off = False  # within a segment after the first scan
        self._segments = Budget(MOST_SEGMENTS, "segments")
        self._filler = Budget(MOST_FILLER_BYTES, "bytes of filler")

    def segment(self) -> tuple[int, int, int]:
        """The next segment's marker, where it begins and where it ends; raises Undecodable when there is none."""
        data = self.data
        while True:
            start = data.find(b"\xff", self.at, self.at + self._filler.left + 1)
            if start < 0:
                self._filler.spend(len(data) - self.at)
                raise Undecodable
            found = _NOT_FILLER.search(data, start, start + self._filler.left + 2)
            if found is None:
                self._filler.spend(len(data) - start)
                raise Undecodable
            self._filler.spend(start - self.at + found.start() - start - 1)
            marker, self.at = data[found.start()], found.end()
            self._segments.spend()
            if marker in (_EOI, _JPG) or 0x01 < marker < 0xC0 or 0xF0 <= marker < _COM:
                raise Undecodable
            if marker > 0x01 and not 0xD0 <= marker <= _SOI:
                break  # the others have no length
        (length,) = struct.unpack_from(">H", data, self.at)
        begin, self.at = found.start() - 1, self.at + length
        if length < 2 or self.at > len(data):
            raise Undecodable
        return marker, begin, self.at

    def next_scan(self) -> tuple[int, int, int] | None:
        """Where the next scan's header begins and ends, and the bytes of tables before it; None at the end."""
        table_bytes = 0
        while True:
            found = self._coded_marker()
            if found is None:
                return None
            marker, self.at = self.data[found.end() - 1], found.start()
            if marker == 0xFF:
                self._filler.spend()
                run = _NOT_FILLER.search(self.data, self.at, self.at + self._filler.left + 2)
                if run is None:
                    self._filler.spend(len(self.data) - self.at)
                    return None
                self._filler.spend(run.start() - self.at - 1)
                self.at = run.start() - 1
                continue
            if marker not in (*_TABLES, _SOS, _DNL, _COM) and not _APP0 <= marker <= _APP15:
                return None  # the end, or what no decoder goes on after
            try:
                _, begin, end = self.segment()
            except (Undecodable, struct.error):
                self.breaks_off = True
                return None
            if marker == _SOS:
                return begin, end, table_bytes
            if marker in _TABLES:
                table_bytes += end - begin

    def _coded_marker(self) -> re.Match[bytes] | None:
        """The next marker in what a scan holds; raises Refused for data of little else than stuffed bytes."""
        while self.at < len(self.data):
            end = self.at + _WINDOW
            found = _MARKER.search(self.data, self.at, end + 1)
            if found is not None:
                return found
            if self.data.count(b"\xff", self.at, end) > MOST_STUFFED_BYTES:
                raise Refused(f"In {_WINDOW >> 10} kB of the image more than {MOST_STUFFED_BYTES:,} bytes are stuffed.")
            self.at = end
        return None


def _read_segment(header: _Header, marker: int, segment: memoryview) -> None:
    content = segment[4:]
    if marker in _TABLES:
        header.table_bytes.spend(len(segment))
        header.kept.append(segment)
    elif marker in _FRAMES:
        if header.frame or len(content) < 6:
            raise Undecodable
        header.frame = marker
        header.height, header.width = struct.unpack_from(">HH", content, 1)
        _read_components(header, content)
        header.kept.append(segment)
    elif (marker == _APP0 and content[:4] == _JFIF) or (marker == _APP14 and content[:5] == _ADOBE):
        header.kept.append(segment)
    elif marker == _APP1:
        _read_notes(header, content)
    elif marker == _APP2 and content[:4] == _SEVERAL:
        header.several = bytes(content[4:])


def _read_notes(header: _Header, content: memoryview) -> None:
    if content[:6] == _EXIF:
        header.exif = header.exif or bytes(content)
    elif content[: len(_XMP)] == _XMP:
        header.xmp = bytes(content)


def _holds_several(header: _Header) -> bool:
    """Whether the file is a multi-picture one, which is decoded in full before it is made smaller."""
    try:
        count = tiff_number(header.several, _NUMBER_OF_IMAGES) if header.several else None
    except (struct.error, ValueError):
        return False
    return count is not None and count > 1 and _GAIN_MAP not in header.xmp


def _read_components(header: _Header, frame: memoryview) -> None:
    """How many blocks of 8 x 8 samples each component has."""
    components = [(frame[i], frame[i + 1] >> 4, frame[i + 1] & 15) for i in range(6, len(frame) - 2, 3)]
    if not components or len(components) != frame[5] or any(not across or not down for _, across, down in components):
        raise Undecodable
    most_across = max(across for _, across, _ in components)
    most_down = max(down for _, _, down in components)
    for name, across, down in components:
        blocks = -(-header.width * across // (8 * most_across)) * -(-header.height * down // (8 * most_down))
        header.blocks[name] = max(blocks, header.blocks.get(name, 0))
        header.all_blocks += blocks
    header.components = len(components)


def _check_scans(header: _Header, walk: _Walk, begin: int, end: int) -> None:
    """Refuses scans that are too many, or that visit the coefficients more often than an honest file's."""
    scans, work = Budget(MOST_SCANS, "scans"), 0
    weight = _ARITHMETIC_WORK if header.frame in _ARITHMETIC else 1
    found: tuple[int, int, int] | None = (begin, end, 0)
    while found is not None:
        begin, end, table_bytes = found
        scans.spend()
        header.table_bytes.spend(table_bytes)
        work += weight * _work(header, walk.data[begin + 4 : end])
        found = walk.next_scan()
    coefficients = header.all_blocks * _BLOCK
    if work > max(SMALL_SCAN_WORK, MOST_SCAN_WORK * coefficients):
        raise Refused(
            f"The scans of the image visit its {coefficients:,} coefficients {work / coefficients:,.0f} times; at most "
            f"{MOST_SCAN_WORK} times are accepted. Send it as a baseline JPEG."
        )


def _work(header: _Header, scan: bytes) -> int:
    """How many coefficients a scan visits, each block counted as 8 at least."""
    count = scan[0] if scan else 0
    if len(scan) < 4 + 2 * count:
        return 0  # no decoder takes it
    blocks = sum(header.blocks.get(scan[1 + 2 * i], 0) for i in range(count))
    first, last = scan[1 + 2 * count], scan[2 + 2 * count]
    band = last - first + 1 if header.frame in _PROGRESSIVE else _BLOCK
    return blocks * max(_LEAST_BAND, band)
