"""Data URLs by RFC 2397: whatever stands in the head, the file itself says what it is."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote, quote_from_bytes

import pytest
from cpu_time import takes_less_than
from hypothesis import given
from hypothesis import strategies as st

from gateway.reading.base64_file import bytes_of_base64
from glmserve.errors import BadImage, TooLarge

MOST = 1_000_000
DATA = bytes(range(256)) + b"%==_ \n"
PACKED = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        " \r\n data:image/png;base64,",
        "data:;base64,",
        "data:base64,",
        "data:application/octet-stream;base64,",
        "data:image/png;charset=utf-8;base64,",
        "data:image/png;name=a.png;base64,",
        "data:image/png;name=图.png;base64,",
        'data:image/png;name="a,b;c.png";base64,',
        "data:image/png; charset=utf-8; base64,",
        "data:image/svg+xml;charset=utf-8;name=a%20b.png;base64,",
        "data:image/vnd.microsoft.icon-and-a-very-long-name-indeed;base64,",
        "data:image/png;base64;name=a.png,",
        "data:image/png;base64, ",
    ],
)
def test_every_head_is_passed_over(head: str) -> None:
    assert bytes_of_base64(head + PACKED, MOST) == DATA


@pytest.mark.parametrize("head", ["data:,", "data:image/png,", "data:image/png;charset=utf-8,", " data:image/png,"])
def test_without_base64_the_data_is_percent_encoded(head: str) -> None:
    for safe in ("", "/:=&?"):
        assert bytes_of_base64(head + quote_from_bytes(DATA, safe), MOST) == DATA


def test_base64_may_be_percent_encoded_too() -> None:
    assert bytes_of_base64("data:image/png;base64," + quote(PACKED, safe="").replace("A", "%41"), MOST) == DATA


@given(st.binary(min_size=1, max_size=300), st.text("/:=&?_.-=", max_size=9))
def test_any_bytes_survive_percent_encoding(data: bytes, safe: str) -> None:
    assert bytes_of_base64("data:image/png," + quote_from_bytes(data, safe), MOST) == data


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:", "without data"),
        ("data:image/png;base64", "without data"),
        ("data:image/png;name=" + "a" * 2000 + ";base64,QUJD", "without data"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,", "is empty"),
        ("data:image/png,%4", "without two hexadecimal digits"),
        ("data:image/png,%zz", "without two hexadecimal digits"),
        ("data:image/png;base64,Ü", "not valid base64"),
        ("data:image/png,Ü", "not valid base64"),
        ("data:image/png;base64,data:image/png;base64,QUJD", "not valid base64"),
    ],
)
def test_what_is_wrong_with_a_data_url_is_told(text: str, words: str) -> None:
    with pytest.raises(BadImage, match=words) as refusal:
        bytes_of_base64(text, MOST, "images[1]")
    assert refusal.value.field == "images[1]" and "images[1]" in refusal.value.message


def test_percent_encoded_files_have_the_same_limit() -> None:
    assert len(bytes_of_base64("data:," + "%41" * 50 + "B" * 50, 100)) == 100
    with pytest.raises(TooLarge):
        bytes_of_base64("data:," + "%41" * 51 + "B" * 50, 100)


@pytest.mark.parametrize("text", ["%41", "%4", "A", ";", '"', "%"])
def test_megabytes_of_anything_are_read_in_a_moment(text: str) -> None:
    def read() -> None:
        with suppress(BadImage):
            bytes_of_base64("data:image/png," + text * (15_000_000 // len(text)), 15 << 20)

    assert takes_less_than(1, read)
