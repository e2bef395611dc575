"""AVIF and HEIC: their boxes are walked within bounds, and photos of phones come out upright and whole."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from cpu_time import takes_less_than
from decoding import limits
from decoding_cost import cost_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from samples import file_of

from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.images.isobmff import kind_of
from gateway.images.structure import read_structure
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage

pillow_heif = pytest.importorskip("pillow_heif")
MIB = 1 << 20
SMOOTH = Image.merge("RGB", [Image.effect_noise((101, 67), 90).resize((404, 268)) for _ in range(3)])


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif.register_heif_opener()
    return file_of(image, "HEIF", quality=80, **options)


@cache
def smooth_file(is_heic: bool) -> bytes:
    return heic(SMOOTH, enc_params={"preset": "ultrafast"}) if is_heic else file_of(SMOOTH, "AVIF", speed=10)


def pixels(decoders: DecoderPool, data: bytes, max_side: int = 4000) -> np.ndarray:
    """Rows of red, green and blue, u8 [height, width, 3]."""
    opened = OpenedImage(data, limits(max_side=max_side))
    planes = opened.planes(decoders, opened.size, Deadline.after(20), Cancellation())
    return np.moveaxis(planes, 0, -1)


def reference(data: bytes) -> Image.Image:
    return pillow_heif.open_heif(io.BytesIO(data)).to_pillow()


PHOTOS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: heic(SMOOTH),
    "fine": lambda: heic(SMOOTH, chroma=444),
    "grey": lambda: heic(SMOOTH.convert("L")),
    "of odd sides": lambda: heic(SMOOTH.crop((0, 0, 403, 267))),
    "with notes": lambda: heic(SMOOTH, exif=b"Exif\0\0junk", xmp=b"<x/>"),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo_has_the_pixels_that_its_library_gives_it(decoders: DecoderPool, name: str) -> None:
    data = PHOTOS[name]()
    assert np.array_equal(pixels(decoders, data), np.asarray(reference(data).convert("RGB")))


def test_a_photo_in_tiles_is_one_picture(decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 128)
    data = heic(SMOOTH)
    monkeypatch.undo()
    assert b"grid" in data
    assert np.array_equal(pixels(decoders, data), np.asarray(reference(data).convert("RGB")))


def test_clear_pixels_of_a_photo_show_white(decoders: DecoderPool) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert pixels(decoders, heic(clear)).min() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_once(decoders: DecoderPool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ImageOps.exif_transpose(file_with(SMOOTH, exif))
    for data in (heic(SMOOTH, exif=exif.tobytes()), file_of(SMOOTH, "AVIF", exif=exif.tobytes())):
        found = pixels(decoders, data)
        assert found.shape[1::-1] == upright.size
        assert np.abs(found.astype(int) - np.asarray(upright)).mean() < 20


def file_with(image: Image.Image, exif: Image.Exif) -> Image.Image:
    return Image.open(io.BytesIO(file_of(image, "PNG", exif=exif)))


@pytest.mark.parametrize("max_side", [200, 100, 30])
def test_a_large_photo_is_made_to_fit(decoders: DecoderPool, max_side: int) -> None:
    data = heic(SMOOTH)
    found = pixels(decoders, data, max_side)
    wanted = reference(data).resize(found.shape[1::-1], Image.Resampling.BICUBIC, reducing_gap=3)
    assert np.array_equal(found, np.asarray(wanted))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_photo_of_12_megapixels_takes_what_it_may(kind: str) -> None:
    image = SMOOTH.resize((4032, 3024))
    cost = cost_of(
        heic(image, enc_params={"preset": "ultrafast"}) if kind == "HEIF" else file_of(image, "AVIF", speed=10)
    )
    assert cost.refusal is None and cost.grown_bytes < 200 * MIB, cost


def test_where_the_library_is_missing_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.chat.image_decoder.can_read_heif", lambda: False)
    with pytest.raises(BadImage, match="HEIC photo, and this service does not read them: send it as a JPEG"):
        OpenedImage(heic(SMOOTH), limits())
    OpenedImage(file_of(SMOOTH, "AVIF"), limits())


def test_memory_that_a_photo_needs_is_known_before() -> None:
    data = file_of(SMOOTH.resize((1000, 1000)), "AVIF", speed=10)
    with pytest.raises(BadImage, match="about 8 MiB of memory, and at most 7 MiB"):
        OpenedImage(data, ImageSizeLimits(15 * MIB, 50_000_000, 4000, True, 7 * MIB))


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def photo(*meta: bytes, brand: bytes = b"avif", before: bytes = b"", ispe: tuple[int, int] = (64, 64)) -> bytes:
    """The head of a file of one item with a size, after boxes of a test's own."""
    size = box(b"ispe", struct.pack(">III", 0, *ispe))
    ipma = box(b"ipma", struct.pack(">IIHBB", 0, 1, 1, 1, 1))
    known = (box(b"pitm", struct.pack(">IH", 0, 1)), box(b"iprp", box(b"ipco", size) + ipma))
    return box(b"ftyp", brand + bytes(4) + brand) + before + box(b"meta", bytes(4) + b"".join((*meta, *known)))


def _associations(count: int) -> bytes:
    return box(b"ipma", struct.pack(">II", 0, 1 << 31) + b"\0\2\0" * count)


COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "boxes without content": (lambda: photo(before=box(b"free") * 1_000_000), "4,096 boxes"),
    "boxes within": (lambda: photo(box(b"free") * 1_000_000), "4,096 boxes"),
    "items": (lambda: photo(box(b"iinf", struct.pack(">IH", 0, 60_000))), "1,024 parts"),
    "many items": (lambda: photo(box(b"iinf", struct.pack(">II", 1 << 24, 1 << 31))), "1,024 parts"),
    "places": (lambda: photo(box(b"iloc", struct.pack(">IHH", 0, 0, 2000))), "1,024 parts"),
    "associations": (lambda: photo(box(b"iprp", box(b"ipco") + _associations(MIB))), "16,384 properties"),
    "pixels": (lambda: photo(ispe=(1 << 20, 1 << 20)), "1048576 x 1048576 pixels"),
    "memory": (lambda: photo(ispe=(7000, 7000)), "MiB of memory"),
}


@pytest.mark.parametrize("brand", [b"avif", b"heic"])
@pytest.mark.parametrize("name", COSTLY)
def test_a_structure_that_costs_is_refused_before_anything_is_decoded(name: str, brand: bytes) -> None:
    maker, words = COSTLY[name]
    data = maker()
    data = data[:8] + brand + data[12:16] + brand + data[20:]

    def is_refused() -> None:
        with pytest.raises(BadImage, match=words):
            OpenedImage(data, limits())

    assert takes_less_than(0.02, is_refused)


def test_what_passes_the_structure_and_holds_nothing_is_a_bad_image(decoders: DecoderPool) -> None:
    for brand in (b"avif", b"heic"):
        with pytest.raises(BadImage, match="cannot be decoded"):
            pixels(decoders, photo(brand=brand))


def test_films_and_other_boxes_are_no_pictures() -> None:
    for brand in (b"isom", b"qt  ", b"mp42", b"M4A ", b"jp2 "):
        data = box(b"ftyp", brand + bytes(4) + brand)
        assert kind_of(data) is None
        with pytest.raises(BadImage, match="HEIC or film file"):
            OpenedImage(data + bytes(99), limits())


@given(data=st.data(), is_heic=st.booleans())
def test_a_damaged_file_is_read_or_refused_but_never_our_failure(data: st.DataObject, is_heic: bool) -> None:
    whole = bytearray(smooth_file(is_heic))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(whole), 900) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    try:
        read_structure(bytes(whole[:end] if data.draw(st.booleans()) else whole))
    except ValueError:
        return
