"""What a picture's file can make a library say stays out of the service's log."""

from __future__ import annotations

import logging as standard
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import TiffTags

pytestmark = pytest.mark.process
SCRIPT = """
import io, sys
from PIL import Image
from gateway.observability import logging
logging.configure()
try:
    image = Image.open(io.BytesIO(sys.stdin.buffer.read()))
    image.load()
    dict(image.getexif())
except Exception as error:
    print(type(error).__name__)
"""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_with_bad_exif() -> bytes:
    """Each tag of its EXIF has two values where one belongs, which Pillow says in a warning of its own."""
    wrong = sorted(tag for tag, known in TiffTags.TAGS_V2.items() if known.length == 1)
    tags = b"".join(struct.pack("<HHIHH", tag, 3, 2, 1, 1) for tag in wrong)
    exif = b"II*\0" + struct.pack("<IH", 8, len(wrong)) + tags + b"\0\0\0\0"
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"eXIf", exif) + pixels + _chunk(b"IEND", b"")


def _said(script: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", script], input=_png_with_bad_exif(), capture_output=True, timeout=60, check=True
    )
    return done.stderr


def test_a_picture_whose_every_tag_is_wrong_says_nothing_in_the_log() -> None:
    assert _said(SCRIPT.replace("logging.configure()", "")).count(b"Warning") > 5, "Pillow says it no more"
    assert _said(SCRIPT) == b""


def test_other_libraries_may_still_warn() -> None:
    from gateway.observability import logging

    logging.configure()
    assert standard.getLogger("gunicorn").isEnabledFor(standard.WARNING)
