"""What is decoded after the structure was checked is, bit by bit, what Pillow makes of the whole honest file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from decoding import limits, pillows_pixels, pixels_of
from hostile_images import png_chunk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import BmpImagePlugin, Image, ImageCms, PngImagePlugin
from samples import file_of

from gateway.chat.image_decoder import OpenedImage
from gateway.images import pixels
from gateway.images.bmp_rle import _expanded
from gateway.images.structure import read_structure

NOISE = Image.merge("RGB", [Image.effect_noise((150, 94), 80 + 20 * i) for i in range(3)])
SMOOTH = NOISE.resize((301, 187), Image.Resampling.BICUBIC)
ALPHA = Image.linear_gradient("L").resize(SMOOTH.size)
COMMENT = b"words " * 100
XMP = b'<x tiff:Orientation="6"/>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def held(orientation: int, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    exif[0x010F] = "a camera whose name is longer than four bytes"
    return exif.tobytes()


def rgba() -> Image.Image:
    image = SMOOTH.copy()
    image.putalpha(ALPHA)
    return image


def palette(transparency: int | bytes | None = None) -> tuple[Image.Image, dict[str, Any]]:
    return SMOOTH.quantize(64), {} if transparency is None else {"transparency": transparency}


def png_rows(colour: int, depth: int, interlaced: bool = False, before: bytes = b"") -> bytes:
    """A PNG of random bytes, with the kinds that Pillow does not write: every filter, 16 bits and Adam7."""
    width, height, channels = 61, 47, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    random = np.random.default_rng(depth * 10 + colour)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns = -(-(width - left) // across)
        for row in range(-(-(height - top) // down)):
            rows += bytes((row % 5,)) + random.bytes((columns * channels * depth + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    data = zlib.compress(rows)
    chunks = [png_chunk(b"IDAT", data[i : i + 999]) for i in range(0, len(data), 999)]
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + b"".join(chunks) + png_chunk(b"IEND", b"")


def bmp_rle(bits: int, rows: bytes, width: int = 20, height: int = 9, colours: int = 16) -> bytes:
    table = bytes(i * 7 % 256 for i in range(4 * colours))
    start = 54 + len(table)
    compression = {8: 1, 4: 2}[bits]
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + table + rows


def noted_png() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "words", zip=True)
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return file_of(SMOOTH, "PNG", pnginfo=notes, icc_profile=PROFILE, dpi=(72, 72), exif=held(3))


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


PLAIN = file_of(SMOOTH, "JPEG", quality=90)
ADOBE = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
PLTE = png_chunk(b"PLTE", bytes(range(256)) * 3)
RUNS = b"\x07\x03\x00\x00\x00\x02\x03\x01\x11\x02\x00\x00\x14\x05\x00\x00\x14\x06\x00\x01"
"""A row cut short, a move down and across, two whole rows, and the end."""
RUNS_OF_8 = b"\x05\x01\x00\x03\x01\x02\x03\x00\x0c\x02\x00\x00" * 4 + RUNS
RUNS_OF_4 = b"\x05\x12\x00\x03\x12\x30\x0d\x23\x00\x00" * 4 + RUNS

HONEST: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: PLAIN,
    "jpeg grey": lambda: file_of(SMOOTH.convert("L"), "JPEG"),
    "jpeg cmyk": lambda: file_of(SMOOTH.convert("CMYK"), "JPEG"),
    "jpeg progressive": lambda: file_of(SMOOTH, "JPEG", progressive=True),
    "jpeg progressive 4:4:4": lambda: file_of(SMOOTH, "JPEG", progressive=True, subsampling=0, quality=80),
    "jpeg progressive cmyk": lambda: file_of(SMOOTH.convert("CMYK"), "JPEG", progressive=True),
    "jpeg 4:2:2": lambda: file_of(SMOOTH, "JPEG", subsampling=1),
    "jpeg with restarts": lambda: file_of(SMOOTH, "JPEG", restart_marker_blocks=3),
    "jpeg of rgb": lambda: file_of(SMOOTH, "JPEG", keep_rgb=True),
    "jpeg with notes": lambda: file_of(SMOOTH, "JPEG", comment=COMMENT, exif=held(6), icc_profile=PROFILE, xmp=XMP),
    "jpeg that only xmp turns": lambda: file_of(SMOOTH, "JPEG", xmp=XMP),
    "jpeg that exif leaves to xmp": lambda: file_of(SMOOTH, "JPEG", xmp=XMP, exif=Image.Exif().tobytes() + b"\0" * 9),
    "jpeg with exif twice": lambda: with_segments(PLAIN, *(jpeg_segment(0xE1, held(8)),) * 2),
    "jpeg of adobe": lambda: with_segments(PLAIN, ADOBE),
    "jpeg without jfif": lambda: PLAIN[:2] + PLAIN[20:],
    "jpeg with filler": lambda: with_segments(PLAIN, b"\xff\xff\xff\xff"),
    "jpeg with a tail": lambda: PLAIN + COMMENT + PLAIN,
    "jpeg of several images": lambda: file_of(SMOOTH, "MPO", save_all=True, append_images=[NOISE]),
    "png": lambda: file_of(SMOOTH),
    "png with notes": noted_png,
    "png grey": lambda: file_of(SMOOTH.convert("L")),
    "png grey with a clear level": lambda: file_of(SMOOTH.convert("L"), transparency=120),
    "png black and white": lambda: file_of(SMOOTH.convert("1")),
    "png black and white, white clear": lambda: file_of(SMOOTH.convert("1"), transparency=1),
    "png grey with alpha": lambda: file_of(rgba().convert("LA")),
    "png with alpha": lambda: file_of(rgba()),
    "png with a clear colour": lambda: file_of(SMOOTH.quantize(9).convert("RGB"), transparency=(0, 0, 0)),
    "png palette": lambda: file_of(palette()[0]),
    "png palette, one clear": lambda: file_of(palette()[0], transparency=5),
    "png palette with alpha": lambda: file_of(palette()[0], transparency=bytes(range(0, 128, 2))),
    "png palette of 4 bits": lambda: file_of(SMOOTH.quantize(16), bits=4),
    "png 16 bits grey": lambda: file_of(Image.fromarray(np.asarray(SMOOTH.convert("L")).astype(np.uint16) * 257)),
    **{
        f"png colour {colour}, {depth} bits, interlaced {interlaced}": (
            lambda c=colour, d=depth, i=interlaced: png_rows(c, d, i, PLTE if c == 3 else b"")
        )
        for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items()
        for depth in depths
        for interlaced in (False, True)
    },
    "png 16 bits with a clear level": lambda: png_rows(0, 16, before=png_chunk(b"tRNS", b"\0\7")),
    "png colour with a clear one": lambda: png_rows(2, 8, before=png_chunk(b"tRNS", b"\0\1\0\2\0\3")),
    "png that moves": lambda: file_of(SMOOTH, "PNG", save_all=True, append_images=[SMOOTH.rotate(9)]),
    "png that moves with alpha": lambda: file_of(
        rgba(), "PNG", save_all=True, append_images=[rgba().rotate(9)], blend=1
    ),
    "png that moves after another image": lambda: file_of(
        SMOOTH, "PNG", save_all=True, default_image=True, append_images=[SMOOTH.rotate(9), SMOOTH.rotate(18)]
    ),
    "gif": lambda: file_of(palette()[0], "GIF"),
    "gif grey": lambda: file_of(SMOOTH.convert("L"), "GIF"),
    "gif with a clear colour": lambda: file_of(palette()[0], "GIF", transparency=5),
    "gif with a comment": lambda: file_of(palette()[0], "GIF", comment=COMMENT * 9, transparency=3),
    "gif in rows": lambda: file_of(palette()[0], "GIF", interlace=0),
    "gif that moves": lambda: file_of(
        palette()[0], "GIF", save_all=True, append_images=[palette()[0].rotate(9)], transparency=0, disposal=2, loop=0
    ),
    "bmp": lambda: file_of(SMOOTH, "BMP"),
    "bmp with alpha": lambda: file_of(rgba(), "BMP"),
    "bmp grey": lambda: file_of(SMOOTH.convert("L"), "BMP"),
    "bmp black and white": lambda: file_of(SMOOTH.convert("1"), "BMP"),
    "bmp palette": lambda: file_of(palette()[0], "BMP"),
    "bmp runs of 8 bits": lambda: bmp_rle(8, RUNS_OF_8),
    "bmp runs of 4 bits": lambda: bmp_rle(4, RUNS_OF_4),
    "webp": lambda: file_of(SMOOTH, "WEBP"),
    "webp lossless": lambda: file_of(SMOOTH, "WEBP", lossless=True),
    "webp with alpha": lambda: file_of(rgba(), "WEBP"),
    "webp lossless with alpha": lambda: file_of(rgba(), "WEBP", lossless=True, exact=True),
    "webp with notes": lambda: file_of(SMOOTH, "WEBP", exif=held(8), icc_profile=PROFILE, xmp=XMP),
    "avif": lambda: file_of(SMOOTH, "AVIF"),
    "avif 4:4:4": lambda: file_of(SMOOTH, "AVIF", subsampling="4:4:4", quality=90),
    "avif grey": lambda: file_of(SMOOTH.convert("L"), "AVIF"),
    "avif with alpha": lambda: file_of(rgba(), "AVIF"),
    "avif with notes": lambda: file_of(SMOOTH, "AVIF", exif=held(8), icc_profile=PROFILE, xmp=XMP),
    "avif that moves": lambda: file_of(SMOOTH, "AVIF", save_all=True, append_images=[SMOOTH.rotate(9)]),
    "webp that moves": lambda: file_of(rgba(), "WEBP", save_all=True, append_images=[rgba().rotate(9)], lossless=True),
}


@cache
def file(name: str) -> bytes:
    return HONEST[name]()


def decoded(data: bytes, max_side: int = 4000) -> np.ndarray:
    return np.asarray(pixels_of(OpenedImage(data, limits(max_side=max_side))))


@pytest.fixture(params=["whole", "converted in bands", "in bands"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A decoding process's Pillow; once with bands so narrow that every sample has several."""
    openers, decoders = dict(Image.OPEN), dict(Image.DECODERS)
    most = Image.MAX_IMAGE_PIXELS
    pixels.prepare()
    if request.param != "whole":
        monkeypatch.setattr(pixels, "LARGE_PIXELS", 1)
        monkeypatch.setattr(pixels, "HUGE_PIXELS", 1 if request.param == "in bands" else pixels.HUGE_PIXELS)
        monkeypatch.setattr(pixels, "STILL_PIXELS", 1 if request.param == "in bands" else pixels.STILL_PIXELS)
        monkeypatch.setattr(pixels, "BAND_PIXELS", 2000)
    yield
    Image.OPEN.update(openers)
    Image.DECODERS.clear()
    Image.DECODERS.update(decoders)
    Image.MAX_IMAGE_PIXELS = most


@pytest.mark.parametrize("name", HONEST)
def test_every_kind_of_honest_file_has_the_pixels_that_pillow_gives_it(name: str, way: None) -> None:
    data = file(name)
    for max_side in (4000, 100, 16):
        assert np.array_equal(decoded(data, max_side), np.asarray(pillows_pixels(data, max_side)))


@pytest.mark.parametrize("size", [(90, 400), (400, 90), (90, 180), (91, 183), (40, 700)])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_tall_and_wide_images_are_made_to_fit_as_pillow_does(size: tuple[int, int], mode: str, way: None) -> None:
    data = file_of(NOISE.resize(size).convert(mode))
    for max_side in (100, 60, 20):
        assert np.array_equal(decoded(data, max_side), np.asarray(pillows_pixels(data, max_side)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "endian"), [("JPEG", "<"), ("JPEG", ">"), ("PNG", "<"), ("WEBP", ">"), ("AVIF", ">")])
def test_every_orientation_is_pillows(orientation: int, kind: str, endian: str, way: None) -> None:
    data = file_of(SMOOTH, kind, exif=held(orientation, endian))
    for max_side in (4000, 100):
        assert np.array_equal(decoded(data, max_side), np.asarray(pillows_pixels(data, max_side)))


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_a_file_that_breaks_off_anywhere_is_refused_or_decoded_but_never_our_failure(name: str) -> None:
    data = file(name)
    for end in range(0, len(data), max(1, len(data) // 50)):
        try:
            read_structure(data[:end])
        except ValueError:
            continue


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF"]),
    orientation=st.integers(1, 8),
    max_side=st.integers(1, 120),
    seed=st.integers(0, 2**32 - 1),
    options=st.fixed_dictionaries({}, optional={"quality": st.integers(1, 100), "progressive": st.booleans()}),
)
def test_random_honest_files_have_the_pixels_that_pillow_gives_them(
    size: tuple[int, int],
    mode: str,
    kind: str,
    orientation: int,
    max_side: int,
    seed: int,
    options: dict[str, Any],
    way: None,
) -> None:
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8), "RGBA")
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, size[::-1], dtype=np.uint16))
    else:
        image = noise.convert("RGB").convert(mode) if mode in ("P", "CMYK") else noise.convert(mode)
    saved = io.BytesIO()
    try:
        image.save(saved, kind, **({} if kind in ("BMP", "GIF") else {"exif": held(orientation)}), **options)
    except (OSError, ValueError):
        return  # no such mode in this format
    data = saved.getvalue()
    assert np.array_equal(decoded(data, max_side), np.asarray(pillows_pixels(data, max_side)))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    data=st.lists(
        st.one_of(
            st.binary(min_size=2, max_size=2),
            st.sampled_from([b"\0\0", b"\0\1", b"\0\2\1\1", b"\0\3abc\0", b"\0\4abcd", b"\x05a", b"\x01b"]),
        ),
        max_size=40,
    ).map(b"".join),
    width=st.integers(1, 12),
    height=st.integers(1, 6),
    has_nibbles=st.booleans(),
    start=st.integers(0, 1),
)
def test_run_lengths_become_the_pixels_that_pillow_makes_of_them(
    data: bytes, width: int, height: int, has_nibbles: bool, start: int
) -> None:
    given: list[bytes] = []

    class Pillows(BmpImagePlugin.BmpRleDecoder):
        def set_as_raw(self, data: bytes, *_: Any) -> None:
            given.append(data)

    decoder = Pillows("P", "P", has_nibbles, -1)
    decoder.state.xsize, decoder.state.ysize = width, height
    whole = io.BytesIO(bytes(start) + data)
    whole.seek(start)
    decoder.setfd(whole)
    decoder.decode(b"")
    ours = _expanded(data, width, height, has_nibbles, bool(start))
    most = width * height
    assert ours[:most] == given[0][:most] and (len(ours) < most) == (len(given[0]) < most)
