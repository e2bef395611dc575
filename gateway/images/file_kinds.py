"""What a file is that is no image we read, for the sentence that refuses it."""

from __future__ import annotations

import re

_HEAD_BYTES = 512
_STARTS = (
    (b"II*\0", "a TIFF file"),
    (b"MM\0*", "a TIFF file"),
    (b"II+\0", "a TIFF file"),
    (b"MM\0+", "a TIFF file"),
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"PK\3\4", "a ZIP or Office file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"Rar!", "an archive"),
    (b"7z\xbc\xaf", "an archive"),
    (b"\x1aE\xdf\xa3", "a film"),
    (b"ID3", "a sound file"),
    (b"OggS", "a sound file"),
    (b"fLaC", "a sound file"),
    (b"data:", "a data URL and not the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)
_PROLOGUE = rb"\s*+(?>(?><\?xml[^>]*+>|<!--.*?-->|<!doctype svg[^>]*+>)\s*+)*+"
_MARKUPS = (
    (re.compile(_PROLOGUE + rb"<svg\b", re.IGNORECASE | re.DOTALL), "an SVG drawing"),
    (re.compile(rb"\s*+<(!doctype html|html|head|body)\b", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*+[{\[]\s*+[\"{\[\]}]"), "JSON"),
)
_HEAD_OF_JPEG = b"/9j/"


def is_film(kind: str | None) -> bool:
    """Whether a file of this kind may be a video."""
    return kind is not None and "film" in kind.split()


def other_kind(data: bytes) -> str | None:
    """The name of a kind of file that is not accepted; None where nothing tells."""
    head = data[:_HEAD_BYTES]
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[4:8] == b"ftyp":
        return "a HEIC or film file"
    if head.startswith(b"RIFF") and head[8:12] in (b"WAVE", b"AVI "):
        return "a sound or film file"
    if head.startswith((_HEAD_OF_JPEG, b"iVBOR")):
        return "base64 text and not the file itself"
    return next((name for pattern, name in _MARKUPS if pattern.match(head)), None)
