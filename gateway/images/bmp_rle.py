"""Run-length encoded BMP pixels, a row's runs at a time: Pillow's own decoder takes a step for each pixel it fills."""

from __future__ import annotations

import os
from typing import Any

from PIL import ImageFile

_LOW_NIBBLE = 15
_SKIPPED_RUNS = 1 << 16
_BYTES = tuple(bytes((value,)) for value in range(256))
_NIBBLES = tuple(bytes((value >> 4, value & _LOW_NIBBLE)) for value in range(256))
_END_OF_LINE, _END_OF_IMAGE, _MOVE = 0, 1, 2


class RunLengthDecoder(ImageFile.PyDecoder):
    """The same pixels as Pillow's, for both widths of a colour number (`args[1]`: 4 bits, not 8)."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        assert self.fd is not None
        is_odd = bool(self.fd.tell() % 2)  # alignment is that of the file
        data = self.fd.read()
        pixels = _expanded(data, self.state.xsize, self.state.ysize, bool(self.args[1]), is_odd)
        self.fd.seek(0, os.SEEK_END)
        self.set_as_raw(pixels, "L" if self.mode in {"1", "L"} else "P", (0, self.args[-1]))
        return -1, 0


def _expanded(data: bytes, width: int, height: int, has_nibbles: bool, is_odd: bool) -> bytes:
    pixels, total, x, at = bytearray(), width * height, 0, 0
    while len(pixels) < total and at + 1 < len(data):
        if data[at]:
            room = max(0, width - x)
            lengths = data[at : at + 2 * (room or _SKIPPED_RUNS) : 2]
            count = lengths.find(0)
            lengths = lengths if count < 0 else lengths[:count]
            end = min(at + 2 * len(lengths), len(data) - len(data[at:]) % 2)
            if room:  # what does not fit into the row is dropped
                pixels += _runs(lengths, data[at + 1 : end : 2], has_nibbles)[:room]
                x = min(width, x + sum(lengths[: (end - at) // 2]))
            at += 2 * len(lengths)
            continue
        escape, at = data[at + 1], at + 2
        if escape == _END_OF_LINE:
            pixels += bytes(-len(pixels) % width)
            x = 0
        elif escape == _END_OF_IMAGE:
            break
        elif escape == _MOVE:
            if at + 2 > len(data):
                break
            pixels += bytes(min(total - len(pixels), data[at] + data[at + 1] * width))
            x, at = len(pixels) % width, at + 2
        else:
            count = min(total - len(pixels), escape)
            byte_count = (count + 1) // 2 if has_nibbles else count
            literal = data[at : at + byte_count]
            at += byte_count
            pixels += b"".join([_NIBBLES[byte] for byte in literal])[:count] if has_nibbles else literal
            if len(literal) < byte_count or len(pixels) == total:
                break
            x += escape
            at += (at + is_odd) % 2
    return bytes(pixels)


def _runs(lengths: bytes, values: bytes, has_nibbles: bool) -> bytes:
    runs = zip(lengths, values, strict=False)
    if has_nibbles:
        return b"".join([(_NIBBLES[value] * ((length + 1) // 2))[:length] for length, value in runs])
    return b"".join([_BYTES[value] * length for length, value in runs])
