"""A file that is no picture we read is called by its name."""

from __future__ import annotations

import pytest
from cpu_time import takes_less_than
from hostile import BAD_IMAGES
from hypothesis import given
from hypothesis import strategies as st

from gateway.images.file_kinds import other_kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("html", "an HTML page"),
        ("svg", "an SVG drawing"),
        ("pdf", "a PDF file"),
        ("eps", "a PostScript file"),
        ("zip", "a ZIP or Office file"),
        ("tiff", "a TIFF file"),
        ("ico", "an icon (ICO)"),
        ("jpeg 2000", "a JPEG 2000 image"),
        ("text", None),
        ("nothing", None),
    ],
)
def test_known_kinds_have_names(name: str, words: str | None) -> None:
    assert other_kind(BAD_IMAGES[name]) == words


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'<?xml version="1.0"?>\n<!-- made -->\n<!DOCTYPE svg PUBLIC "x">\n<svg xmlns="x">', "an SVG drawing"),
        (b"\n <!DOCTYPE HTML><title>404", "an HTML page"),
        (b'{"error": "not found"}', "JSON"),
        (b"/9j/4AAQSkZJRgABAQ", "base64 text and not the file itself"),
        (b"iVBORw0KGgo", "base64 text and not the file itself"),
        (b"data:image/png;base64,iVBOR", "a data URL and not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, not the file itself"),
        (b"\0\0\0\x20ftypisom", "a HEIC or film file"),
    ],
)
def test_files_that_people_send_by_mistake_have_names(data: bytes, words: str) -> None:
    assert other_kind(data) == words


@given(st.binary(max_size=600) | st.text("<!-?xmlsvg >\n", max_size=600).map(str.encode))
def test_any_bytes_are_looked_at_in_a_moment(data: bytes) -> None:
    assert takes_less_than(0.05, lambda: (other_kind(data), other_kind(b"<!---->" * 70 + data)))
