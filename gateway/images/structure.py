"""An image file's structure, whatever its kind, in a few milliseconds and before a pixel of it is decoded."""

from __future__ import annotations

import struct

from gateway.images.bmp import read_bmp
from gateway.images.gif import read_gif
from gateway.images.image_file import ImageFile, Undecodable
from gateway.images.isobmff import is_isobmff, read_isobmff
from gateway.images.jpeg import read_jpeg
from gateway.images.png import SIGNATURE, read_png
from gateway.images.webp import read_webp

_JPEG = b"\xff\xd8\xff"
_GIFS = (b"GIF87a", b"GIF89a")
_BMP = b"BM"


def read_structure(data: bytes) -> ImageFile:
    """Raises Undecodable for what is no whole image of a kind we accept, and Refused for one that is built to cost.

    The bound of every loop is a count of its own, and no loop looks at single bytes.
    """
    try:
        file = _read(data)
    except (struct.error, IndexError) as error:  # the file ends where more was promised
        raise Undecodable from error
    if file.width < 1 or file.height < 1:
        raise Undecodable
    return file


def _read(data: bytes) -> ImageFile:
    if data.startswith(_JPEG):
        return read_jpeg(data)
    if data.startswith(SIGNATURE):
        return read_png(data)
    if data.startswith(_GIFS):
        return read_gif(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return read_webp(data)
    if data.startswith(_BMP):
        return read_bmp(data)
    if is_isobmff(data):
        return read_isobmff(data)
    raise Undecodable
