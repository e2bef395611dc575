"""Compressed bodies are read within the same limits, and cannot cost more than they may."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from functools import partial

import brotli
import pytest
from costly_bodies import empty_metablocks, fixed_blocks
from cpu_time import takes_less_than
from flask.testing import FlaskClient
from hostile_images import png_deflate_blocks
from hypothesis import given
from hypothesis import strategies as st
from samples import OPENAI_URL, URL, assert_problem

from gateway.errors import NotJson
from gateway.reading.content_encoding import UNPACK_BYTE_NS, unpacked
from glmserve.errors import InvalidInput, TooLarge

MIB = 1 << 20


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "upper case": (" GZIP ", gzip.compress),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "gzip filled with zeros": ("gzip", lambda data: gzip.compress(data) + bytes(512)),
    "deflate": ("deflate", zlib.compress),
    "deflate without its head": ("deflate", raw),
    "brotli": ("br", brotli.compress),
    "identity": ("identity", lambda data: data),
    "identity and gzip": ("identity, gzip", gzip.compress),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_compressed_body_is_as_good_as_a_plain_one(client: FlaskClient, image: str, way: str) -> None:
    encoding, pack = WAYS[way]
    body = pack(json.dumps({"image": image, "prompt": "Hi"}).encode())
    response = client.post(URL, data=body, content_type="application/json", headers={"Content-Encoding": encoding})
    assert response.status_code == 200
    chat = pack(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode())
    headers = {"Content-Encoding": encoding}
    assert client.post(OPENAI_URL, data=chat, content_type="application/json", headers=headers).status_code == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_all_sizes_come_back(way: str, size: int) -> None:
    encoding, pack = WAYS[way]
    data = bytes(i * i % 251 for i in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    assert unpacked(pack(data), encoding, size) == data
    if size > 1 and encoding != "identity":
        with pytest.raises(TooLarge):
            unpacked(pack(data), encoding, size - 1)


@pytest.mark.parametrize("encoding", ["zstd", "compress", "gzip, gzip", "br, gzip", "x" * 500, "\u00fc"])
def test_what_is_not_read_is_a_415_that_says_what_is(client: FlaskClient, encoding: str) -> None:
    response = client.post(URL, data=b"{}", content_type="application/json", headers={"Content-Encoding": encoding})
    assert_problem(response, 415, "gzip, deflate, br or none is accepted")


@pytest.mark.parametrize("way", ["gzip", "deflate", "deflate without its head", "brotli"])
def test_a_body_that_breaks_off_or_is_none_is_a_400(client: FlaskClient, way: str) -> None:
    encoding, pack = WAYS[way]
    whole = pack(bytes(i * i % 251 for i in range(5000)))
    for broken in (whole[: len(whole) // 2], whole[:-1], b'{"image": 1}', b"\xff" * 99):
        headers = {"Content-Encoding": encoding}
        response = client.post(URL, data=broken, content_type="application/json", headers=headers)
        assert_problem(response, 400, f"is not whole {encoding}")


@given(data=st.binary(max_size=300), encoding=st.sampled_from(["gzip", "deflate", "br"]))
def test_any_bytes_are_unpacked_or_refused(data: bytes, encoding: str) -> None:
    try:
        unpacked(data, encoding, 1000)
    except (InvalidInput, NotJson) as error:
        assert error.message


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip of a gigabyte": ("gzip", lambda: gzip.compress(bytes(1 << 28)) * 4),
    "brotli of a gigabyte": ("br", lambda: brotli.compress(bytes(1 << 30), quality=1)),
    "deflate of a gigabyte": ("deflate", lambda: zlib.compress(bytes(1 << 28))),
    "a million members": ("gzip", lambda: gzip.compress(b"") * 1_000_000),
    "blocks without content": ("deflate", lambda: b"\x78\x01" + _blocks()),
    "fixed blocks without content": ("deflate", lambda: fixed_blocks(12_000_000)),
    "brotli blocks without content": ("br", lambda: empty_metablocks(15_000_000)),
    "a little before nothing": (
        "gzip",
        lambda: gzip.compress(b"x") + gzip.compress(b"") * 700_000,
    ),
    "stored blocks without content": ("deflate", lambda: b"\x78\x01" + b"\0\0\0\xff\xff" * 4_000_000),
}


def _blocks() -> bytes:
    """Compressed blocks without content, each with tables of its own."""
    png = png_deflate_blocks(1_200_000)
    return png[png.index(b"IDAT") + 6 : -16] * 2


def _refused(body: bytes, encoding: str) -> None:
    with pytest.raises(InvalidInput):
        unpacked(body, encoding, 20 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_no_body_grows_or_takes_beyond_its_bounds(name: str) -> None:
    encoding, maker = BOMBS[name]
    body = maker()
    assert takes_less_than(0.1 + 20 * MIB * UNPACK_BYTE_NS / 1e9, lambda: _refused(body, encoding))


@pytest.mark.parametrize("name", [name for name in BOMBS if "gigabyte" not in name])
def test_what_holds_nothing_costs_next_to_nothing(name: str) -> None:
    encoding, maker = BOMBS[name]
    body = maker()
    assert takes_less_than(0.1, lambda: _refused(body, encoding))


@pytest.mark.slow
def test_honest_text_takes_less_than_half_of_what_it_may() -> None:
    chance = random.Random(5)
    text = " ".join(f"{chance.getrandbits(40):x}" for _ in range(600_000)).encode()
    for encoding, pack in (("gzip", gzip.compress), ("br", partial(brotli.compress, quality=4))):
        packed = pack(text)
        assert unpacked(packed, encoding, len(text)) == text
        most_s = len(text) * UNPACK_BYTE_NS / 1e9 / 2 + 0.05
        assert takes_less_than(most_s, partial(unpacked, packed, encoding, len(text)))
