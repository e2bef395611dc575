"""Pixels decide whether a picture is read, metadata never: damaged notes, missing ends and what follows them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from decoding import limits, pillows_pixels
from hostile_images import png_chunk, riff_chunk
from PIL import Image
from samples import file_of

from gateway.chat.image_decoder import OpenedImage
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage

NOISE = Image.merge("RGB", [Image.effect_noise((300, 187), 60 + 20 * i) for i in range(3)])
SMOOTH = NOISE.reduce(4).resize(NOISE.size)
PNG, WEBP, BMP = file_of(NOISE), file_of(NOISE, "WEBP"), file_of(NOISE, "BMP")
GIF = file_of(NOISE.quantize(64), "GIF")
PALETTE = file_of(NOISE.quantize(64))
JUNK = b"junk" * 99
CUTS = (1, 2, 3, 5, 8, 13, 21, 100, 1000)


def pixels(decoders: DecoderPool, data: bytes) -> np.ndarray:
    opened = OpenedImage(data, limits())
    return opened.planes(decoders, opened.size, Deadline.after(20), Cancellation())


def unsound(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + b"\0\0\0\0"


def noted(chunk: bytes) -> bytes:
    return PNG[:33] + chunk + PNG[33:]


def before_end(chunk: bytes) -> bytes:
    return PNG[:-12] + chunk + PNG[-12:]


def without_checksum() -> bytes:
    """Its compressed data ends with the last pixel."""
    at = PNG.index(b"IDAT") - 4
    data, left = b"", PNG[at:]
    while left[4:8] == b"IDAT":
        (length,) = struct.unpack(">I", left[:4])
        data, left = data + left[8 : 8 + length], left[12 + length :]
    return PNG[:at] + png_chunk(b"IDAT", data[:-4]) + left


DAMAGED: dict[str, tuple[Callable[[], bytes], bytes]] = {
    **{
        f"png with {name.decode()} of megabytes": (lambda n=name, p=prefix: noted(png_chunk(n, p)), PNG)
        for name, prefix in {
            b"zTXt": b"workflow\0\0" + zlib.compress(b"x" * 1_100_000),
            b"iTXt": b"prompt\0\1\0\0\0" + zlib.compress(b"x" * 1_100_000),
            b"iCCP": b"profile\0\0" + zlib.compress(b"x" * 1_100_000),
            b"tEXt": b"workflow\0" + b"y" * 2_000_000,
        }.items()
    },
    **{
        f"png with a bad checksum of {name.decode()}": (lambda n=name, c=content: noted(unsound(n, c)), PNG)
        for name, content in {
            b"tEXt": b"a\0bcd",
            b"gAMA": bytes(4),
            b"pHYs": bytes(9),
            b"iCCP": b"x",
            b"eXIf": b"MM",
            b"tRNS": bytes(6),
            b"PLTE": bytes(6),
            b"prVt": b"",
        }.items()
    },
    **{
        f"png with an empty {name.decode()}": (lambda n=name: noted(png_chunk(n)), PNG)
        for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"acTL", b"tRNS")
    },
    "png with a bad checksum behind its pixels": (lambda: before_end(unsound(b"tEXt", b"a\0bcd")), PNG),
    "png with a chunk longer than the file": (lambda: before_end(b"\xff\xff\xff\xfftEXtabc"), PNG),
    "png with a bad checksum of its end": (lambda: PNG[:-4] + bytes(4), PNG),
    "png without its end": (lambda: PNG[:-12], PNG),
    "png whose data lacks its checksum": (without_checksum, PNG),
    "png with a tail": (lambda: PNG + JUNK, PNG),
    "webp with a tail": (lambda: WEBP + JUNK, WEBP),
    "webp that says it is longer": (lambda: WEBP[:4] + struct.pack("<I", len(WEBP) + 500) + WEBP[8:], WEBP),
    "webp that says it is shorter": (lambda: WEBP[:4] + struct.pack("<I", len(WEBP) - 9) + WEBP[8:], WEBP),
    "webp with notes of junk": (
        lambda: file_of(NOISE, "WEBP", exif=b"Exif\0\0" + JUNK, icc_profile=JUNK, xmp=JUNK),
        WEBP,
    ),
    "webp with chunks of junk": (lambda: WEBP + riff_chunk(b"EXIF", JUNK) + riff_chunk(b"\xff\0\0\0", JUNK), WEBP),
    "gif with a tail": (lambda: GIF + JUNK, GIF),
    "gif without its trailer": (lambda: GIF[:-1], GIF),
    "gif without its last block": (lambda: GIF[:-2], GIF),
    "bmp with a tail": (lambda: BMP + JUNK, BMP),
    "bmp that says it is shorter": (lambda: BMP[:2] + struct.pack("<I", 5) + BMP[6:], BMP),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_pixel_may_be_damaged(decoders: DecoderPool, name: str) -> None:
    damaged, whole = DAMAGED[name]
    assert np.array_equal(pixels(decoders, damaged()), pixels(decoders, whole))


@pytest.mark.parametrize("name", [b"PLTE", b"IHDR"])
def test_a_damaged_chunk_that_the_pixels_need_is_refused(decoders: DecoderPool, name: bytes) -> None:
    data = PALETTE if name == b"PLTE" else PNG
    at = data.index(name) - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    end = at + 12 + length
    with pytest.raises(BadImage):
        pixels(decoders, data[: end - 4] + bytes(4) + data[end:])


JPEGS: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: file_of(NOISE, "JPEG"),
    "fine": lambda: file_of(NOISE, "JPEG", quality=95, subsampling=0),
    "progressive": lambda: file_of(NOISE, "JPEG", progressive=True),
    "progressive and fine": lambda: file_of(SMOOTH, "JPEG", progressive=True, subsampling=0),
    "grey": lambda: file_of(NOISE.convert("L"), "JPEG"),
    "cmyk": lambda: file_of(NOISE.convert("CMYK"), "JPEG"),
    "with restarts": lambda: file_of(NOISE, "JPEG", restart_marker_rows=1),
    "with tables of its own": lambda: file_of(NOISE, "JPEG", optimize=True),
    "of one colour": lambda: file_of(Image.new("RGB", (300, 187), "red"), "JPEG"),
    "turned": lambda: file_of(NOISE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xff", b"\0\0"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_is_read_where_every_pixel_is_there(
    decoders: DecoderPool, kind: str, end: bytes
) -> None:
    whole = JPEGS[kind]()
    assert np.array_equal(pixels(decoders, whole[:-2] + end), pixels(decoders, whole))


def test_a_large_jpeg_without_its_end_is_decoded_small_all_the_same(decoders: DecoderPool) -> None:
    whole = file_of(NOISE.resize((1200, 748)), "JPEG")
    for data in (whole, whole[:-2]):
        opened = OpenedImage(data, limits(max_side=300))
        found = opened.planes(decoders, opened.size, Deadline.after(20), Cancellation())
        assert np.array_equal(np.moveaxis(found, 0, -1), np.asarray(pillows_pixels(whole, 300)))


@pytest.mark.parametrize(
    "kind", ["baseline", "fine", "progressive", "grey", "cmyk", "with restarts", "with tables of its own"]
)
def test_a_jpeg_that_breaks_off_is_refused_but_for_a_few_blocks(decoders: DecoderPool, kind: str) -> None:
    whole = JPEGS[kind]()
    wanted = pixels(decoders, whole)
    answered = []
    for cut in CUTS:
        try:
            found = pixels(decoders, whole[: -2 - cut])
        except BadImage:
            continue
        answered.append(cut)
        assert (found != wanted).any(axis=0).sum() <= 256
    assert max(answered, default=0) < 100
    with pytest.raises(BadImage):
        pixels(decoders, whole[: len(whole) // 2])
