"""Hostile and broken requests: each is the client's error, answered fast and in plain words."""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image, PngImagePlugin
from samples import URL, ask, assert_problem, file_of

RGB = Image.effect_noise((64, 48), 90).convert("RGB")
JPEG = file_of(RGB, "JPEG")
PNG = file_of(RGB, "PNG")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


BAD_IMAGES: dict[str, bytes] = {
    "one byte": b"\x89",
    "text": b"just some words",
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": b"%PDF-1.7\n1 0 obj<<>>endobj",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(60),
    "tiff": file_of(RGB, "TIFF"),
    "ico": file_of(RGB, "ICO"),
    "tga": file_of(RGB, "TGA"),
    "ppm": file_of(RGB, "PPM"),
    "pcx": file_of(RGB, "PCX"),
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "jpeg start only": b"\xff\xd8",
    "jpeg of no pixels": with_size(JPEG, 0, 0),
    "jpeg of 65500 x 65500": with_size(JPEG, 65500, 65500),
    "jpeg header flipped": flipped(JPEG, JPEG.index(b"\xff\xc0") + 1),
    "half a png": PNG[: len(PNG) // 2],
    "png of 50000 x 50000": png_of(50_000, 50_000, b""),
    "png of 9400 x 9400 in 2 kB": png_of(9400, 9400, b""),
    "png with short data": png_of(64, 64, bytes(100)),
    "png with a bad header checksum": flipped(PNG, 30),
    "png with a bad data checksum": flipped(PNG, PNG.index(b"IDAT") + 20),
    "png of colour type 5": png_of(8, 8, bytes(300), colour=5),
    "png of no pixels": png_of(0, 0, b""),
    "png that is a header only": PNG[:33],
    "gif cut short": file_of(RGB.convert("P"), "GIF")[:40],
    "webp cut short": file_of(RGB, "WEBP")[:200],
    "bmp of negative size": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -5, 5, 1, 24, 0, 0, 0, 0, 0, 0),
    "strip of 5000 to 1": file_of(Image.new("RGB", (5000, 1))),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bytes_that_are_no_picture_are_a_bad_image(client: FlaskClient, name: str) -> None:
    started = time.perf_counter()
    assert_problem(ask(client, base64.b64encode(BAD_IMAGES[name]).decode()), 400, "image")
    assert time.perf_counter() - started < 1


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 30_000_000, zip=True)
    return file_of(RGB, "PNG", pnginfo=info)


ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    "png text bomb": text_bomb,
    "png profile bomb": lambda: png_of(
        8, 8, bytes(8 * 25), before=png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000), 9))
    ),
    "png data longer than its picture": lambda: png_of(8, 8, bytes(30_000_000)),
    "jpeg without its end": lambda: JPEG[:-2],
    "jpeg with a byte flipped": lambda: flipped(JPEG, len(JPEG) // 2),
    "moving png of 200 frames": lambda: file_of(
        RGB, "PNG", save_all=True, append_images=[RGB.rotate(i) for i in range(20)]
    ),
    "moving webp": lambda: file_of(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(9)]),
    "moving gif": lambda: file_of(RGB.convert("P"), "GIF", save_all=True, append_images=[RGB.rotate(9).convert("P")]),
    "broken exif": lambda: file_of(RGB, "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_picture_is_answered_or_refused_but_never_our_failure(client: FlaskClient, name: str) -> None:
    data = ODD_IMAGES[name]()
    started = time.perf_counter()
    response = ask(client, base64.b64encode(data).decode())
    assert time.perf_counter() - started < 2
    if response.status_code != 200:
        assert_problem(response, 400, "image")


def test_a_moving_gif_shows_its_first_frame(client: FlaskClient) -> None:
    assert ask(client, base64.b64encode(ODD_IMAGES["moving gif"]()).decode()).status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        "not base64!",
        "QUJ",  # "AB"
        "A",
        "Zm9v====Zm9v",
        "Ünïcode",
        "data:",
        "data:image/png;base64",
        "data:image/png,abc",
        "data:text/plain;base64,aGVsbG8=",
        "data:image/png;base64,",
        "data:image/png;base64,data:image/png;base64,aGVsbG8=",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        " \n ",
        "====",
    ],
)
def test_an_image_field_without_a_picture_is_a_400(client: FlaskClient, image: str) -> None:
    assert_problem(ask(client, image), 400, "image")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"image=abc&prompt=hi",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"image": "QQ==", "prompt": "x", "temperature": NaN}',
        b'{"image": "QQ==", "prompt": "x", "unknown": NaN}',
        b'{"image": "QQ==", "prompt": "x", "top_p": Infinity}',
        b'{"image": "QQ==", "prompt": "x", "temperature": 1e400}',
        b'{"image": "QQ==", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b'{"image": "QQ==", "prompt": "\\ud800"}',
        b'\xef\xbb\xbf{"image": "QQ==", "prompt": "x"}',
        '{"image": "QQ==", "prompt": "x"}'.encode("utf-16"),
        b'{"image": "QQ==", "prompt": "\xff"}',
        b'{"image": "QQ==", "prompt": "x"} trailing',
        b'["image", "prompt"]',
        b'"image"',
        b"null",
        b"17",
    ],
)
def test_a_body_that_is_no_json_object_is_a_400(client: FlaskClient, body: bytes) -> None:
    assert_problem(client.post(URL, data=body, content_type="application/json"), 400)


def test_of_two_equal_keys_the_last_one_counts(client: FlaskClient, picture: str) -> None:
    body = f'{{"image": "{picture}", "prompt": 5, "prompt": "Hi"}}'
    assert client.post(URL, data=body).status_code == 200


@pytest.mark.parametrize("field", ["image", "prompt"])
@pytest.mark.parametrize("value", [None, "", 5, True, [], {"url": "x"}, ["x"]])
def test_a_missing_or_wrong_required_field_is_named(client: FlaskClient, picture: str, field: str, value: Any) -> None:
    body = {"image": picture, "prompt": "Hi", field: value}
    assert_problem(client.post(URL, json=body), 400, field)
    del body[field]
    assert_problem(client.post(URL, json=body), 400, field)


@pytest.mark.parametrize("prompt", [" ", "\n\t", "\u3000"])
def test_a_blank_prompt_is_named(client: FlaskClient, picture: str, prompt: str) -> None:
    assert_problem(ask(client, picture, prompt), 400, "prompt")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", ["0", "-1", "9223372036854775808", '"5"', "true", "5.0", "1e3", "[5]"]),
        ("max_new_tokens", ["0", '"5"', "32769"]),
        ("temperature", ["-1", "1e9", "2.01", '"0.7"', "true", "[]"]),
        ("top_p", ["0", "2", "-0.1", "false", '"1"']),
        ("top_k", ["-1", "1.5", "true", "2147483648"]),
        ("seed", ["-1", "9223372036854775808", "1.5", '"a"', "false"]),
        ("stop", ['""', "5", '[""]', "[5]", json.dumps(["x"] * 17), json.dumps("x" * 257), json.dumps(["x"] * 1000)]),
        ("thinking", ["1", '"true"', "[]"]),
    ],
)
def test_a_wrong_option_is_named(client: FlaskClient, picture: str, field: str, values: list[str]) -> None:
    for value in values:
        body = f'{{"image": "{picture}", "prompt": "Hi", "{field}": {value}}}'
        assert_problem(client.post(URL, data=body), 400, field)


def test_a_picture_file_over_its_limit_is_a_413(client: FlaskClient) -> None:
    assert_problem(ask(client, "A" * 20_971_500), 413)
