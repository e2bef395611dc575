"""What a decoding process is asked to do with one file, and how it ended, as both sides write it."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from enum import IntEnum

_PACKED = struct.Struct("<8sQ9IdQ")
PIXEL_NS = 30
"""Processor time that decoding a pixel may take, whatever the file: an honest 50-megapixel image needs 20 to 25."""
GRANTED_PIXELS = 50_000_000
"""Pixels beyond these are granted no more time: a larger photo is decoded smaller, which takes 3 to 10 ns for each."""


class Outcome(IntEnum):
    """How decoding ended; a process that ends without a word ran out of processor time or crashed."""

    DONE = 1
    UNDECODABLE = 2
    OUT_OF_MEMORY = 3


@dataclass(frozen=True)
class Job:
    """One file to decode; sides in pixels, a `draft_width` of 0 where the decoder decodes at full size.

    The file lies in the shared memory; the three planes of red, green and blue bytes replace it.
    """

    kind: str
    file_bytes: int
    width: int  # as stored
    height: int
    orientation: int
    draft_width: int  # of the size that a JPEG may be decoded at, no smaller
    draft_height: int
    upright_width: int  # what the image is made to fit in, upright
    upright_height: int
    final_width: int  # what the model reads
    final_height: int
    cpu_s: float
    memory_bytes: int

    def packed(self) -> bytes:
        kind, *numbers = astuple(self)
        return _PACKED.pack(kind.encode(), *numbers)

    @staticmethod
    def unpacked(data: bytes) -> Job:
        kind, *numbers = _PACKED.unpack(data)
        return Job(kind.rstrip(b"\0").decode(), *numbers)


JOB_BYTES = _PACKED.size
