"""The frames of an animated WebP, by way of Pillow: FFmpeg reads none. Runs in a decoding process."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import WebPImagePlugin

from gateway.images.pixels import as_rgb
from gateway.images.videos.job import Facts, VideoJob

_CHUNK = struct.Struct("<4sI")
_HEAD_BYTES = 12


def facts_of_webp(file: io.RawIOBase, job: VideoJob) -> Facts:
    """Walks the chunks and decodes nothing; raises ValueError for a file without frames."""
    file.seek(0)
    data = file.readall()
    canvas, frames, milliseconds = (0, 0), 0, 0
    for kind, at, size in _chunks(data):
        if kind == b"VP8X":
            canvas = _u24(data, at + 4) + 1, _u24(data, at + 7) + 1
        elif kind == b"ANMF" and at + size <= len(data):
            frames += 1
            milliseconds += max(1, _u24(data, at + 12))
            if frames > job.most_packets:
                break
    if not frames:
        raise ValueError("a still image")
    return Facts("webp", "webp", *canvas, frames, 1000 * frames / milliseconds, 1)


def frames_of_webp(file: io.RawIOBase, job: VideoJob, wanted: list[int]) -> Iterator[np.ndarray]:
    """Each wanted frame u8 [height, width, 3], over white; of a broken tail, the last that is whole."""
    file.seek(0)
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(file.readall()))
    if image.width * image.height > job.most_pixels:
        raise ValueError("a frame is larger than its header says")
    shown: np.ndarray | None = None
    for number in wanted:
        try:
            image.seek(number)
            shown = np.asarray(as_rgb(image))
        except (EOFError, OSError):
            if shown is None:
                raise
        yield shown


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = _HEAD_BYTES
    while at + _CHUNK.size <= len(data):
        kind, size = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        yield kind, at, size
        at += size + size % 2


def _u24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
