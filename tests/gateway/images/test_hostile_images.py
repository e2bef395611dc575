"""Images built to cost more than they show: refused by their structure, or ended while they are decoded."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import hostile_images as made
import pytest
from decoding import limits
from decoding_cost import cost_of
from flask.testing import FlaskClient
from samples import OPENAI_URL, URL, ask, assert_problem

from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.images.job import PIXEL_NS
from gateway.images.structure import read_structure
from gateway.settings import GatewaySettings
from glmserve.errors import BadImage

MEGA = 1_000_000
MIB = 1 << 20
STRUCTURE_S = 0.005
NOISE_S = 0.5  # by which the kernel's clock of a process is late on a loaded machine
GRANTED_S = GatewaySettings.model_fields["image_cpu_s"].default

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        f"jpeg of {count} {way} scans of {side} x {side}": (
            lambda s=side, c=count, w=way: made.jpeg_scans(s, c, w),
            "64 scans",
        )
        for side, count, way in (
            (7000, 100, "first"),
            (7000, 1000, "first"),
            (7000, 5000, "refine"),
            (2048, 15_000, "first"),
            (64, 1000, "narrow"),
        )
    },
    "jpeg whose 63 scans visit one coefficient each": (lambda: made.jpeg_scans(7000, 63, "narrow"), "coefficients"),
    "jpeg of 60 sequential scans": (lambda: made.jpeg_scans(7000, 60, "sequential", 3), "20 times"),
    "jpeg of 4000 sequential scans": (lambda: made.jpeg_scans(1000, 4000, "sequential", 3), "64 scans"),
    "jpeg of scans behind megabytes of stuffed bytes": (
        lambda: made.jpeg_scans(4000, 5000, padding=6 * MEGA),
        "bytes are stuffed",
    ),
    "jpeg of exif in pieces, 1 MB": (lambda: made.jpeg_exif(MEGA), "1,024 segments"),
    "jpeg of exif in pieces, 4 MB": (lambda: made.jpeg_exif(4 * MEGA), "1,024 segments"),
    "jpeg of exif in pieces, 15 MB": (lambda: made.jpeg_exif(15 * MEGA), "1,024 segments"),
    "jpeg of exif in longer pieces": (lambda: made.jpeg_exif(8 * MEGA, b"B" * 500), "1,024 segments"),
    "jpeg of empty application segments": (lambda: made.jpeg_segments(0xE5, 3 * MEGA), "1,024 segments"),
    "jpeg of empty comments": (lambda: made.jpeg_segments(0xFE, 3 * MEGA), "1,024 segments"),
    "jpeg of empty restart intervals": (lambda: made.jpeg_segments(0xDD, 50_000, b"\0\1"), "segments"),
    "jpeg of markers without content": (lambda: made.jpeg_with(b"\xff\xd0" * 5 * MEGA), "1,024 segments"),
    "jpeg of filler": (lambda: made.jpeg_filler(15 * MEGA), "bytes of filler"),
    "jpeg of junk": (lambda: made.jpeg_with(b"\xff\xfe\0\2" + bytes(15 * MEGA)), "bytes of filler"),
    "jpeg of filler before each of a few segments": (
        lambda: made.jpeg_with((b"\xff" * 10_000 + b"\xff\xe5\0\2") * 900),
        "bytes of filler",
    ),
    "jpeg of quantisation tables": (
        lambda: made.jpeg_segments(0xDB, 200, (b"\0" + b"\1" * 64) * 1000),
        "bytes of tables",
    ),
    "jpeg of huffman tables": (lambda: made.jpeg_segments(0xC4, 200, (b"\0" + bytes(16)) * 3800), "bytes of tables"),
    "png of private chunks": (lambda: made.png_chunks(b"abCd", MEGA), "2,048 chunks"),
    "png of private chunks with content": (lambda: made.png_chunks(b"abCd", 100_000, b"A" * 99), "2,048 chunks"),
    "png of palettes": (lambda: made.png_chunks(b"PLTE", 100_000, b"\0\0\0"), "2,048 chunks"),
    "png of texts": (lambda: made.png_texts(500_000), "2,048 chunks"),
    "png of empty pixel chunks": (lambda: made.png_data_chunks(MEGA), "10,000 chunks"),
    "gif of one comment of single letters": (lambda: made.gif_comment(7 * MEGA), "16,384 blocks"),
    "gif of one comment of long blocks": (lambda: made.gif_comment(60_000, b"A" * 255), "16,384 blocks"),
    "gif of comments": (lambda: made.gif_comments(3 * MEGA), "16,384 blocks"),
    "gif of junk": (lambda: made.gif_junk(15 * MEGA), "16,384 blocks"),
    "webp of chunks": (lambda: made.webp_chunks(MEGA), "2,048 chunks"),
    "webp of chunks with content": (lambda: made.webp_chunks(100_000, b"A" * 99), "2,048 chunks"),
    "progressive jpeg of 50 megapixels": (lambda: made.jpeg_scans(7071, 0, components=3), "MiB of memory"),
    "png in turns, 50 megapixels": (lambda: made.png(7071, 8, 2, interlaced=True), "MiB of memory"),
    "png of 48 bits a pixel in turns, 50 megapixels": (lambda: made.png(7071, 16, 2, interlaced=True), "MiB of memory"),
    "webp film of 20 megapixels": (lambda: made.webp_film(4500), "MiB of memory"),
    "webp without losses of 50 megapixels": (lambda: made.webp_lossless_head(7071), "MiB of memory"),
}

BOUNDED: dict[str, Callable[[], bytes]] = {
    "jpeg of an exif directory that points at one place": made.jpeg_exif_values,
    "jpeg of a first scan alone, 49 megapixels": lambda: made.jpeg_scans(7000, 0),
    "jpeg of one component in 4000 sequential scans": lambda: made.jpeg_scans(7000, 4000, "sequential"),
    "jpeg of five scans, 49 megapixels": lambda: made.jpeg_scans(7000, 5, "refine"),
    "jpeg of three components and 15 scans": lambda: made.jpeg_scans(4700, 15, "refine", 3),
    "jpeg of 63 scans of a small picture": lambda: made.jpeg_scans(1000, 63, "refine"),
    "png of 1,500 private chunks": lambda: made.png_chunks(b"abCd", 1500),
    "png with chunks behind its pixels": lambda: made.png(after=made.png_chunk(b"abCd") * MEGA),
    "png of text that grows": lambda: made.png_zipped(b"zTXt", 300 * MEGA),
    "png of many texts that grow": lambda: made.png_zipped(b"zTXt", MEGA, 60),
    "png of translated text that grows": lambda: made.png_zipped(b"iTXt", 300 * MEGA),
    "png of a profile that grows": lambda: made.png_zipped(b"iCCP", 300 * MEGA),
    "png of exif that begins again and again": lambda: made.png_chunks(b"eXIf", 1, b"Exif\0\0" * 2 * MEGA),
    "png of 50 megapixels": lambda: made.png(7071),
    "png of 50 megapixels with alpha": lambda: made.png(7071, 8, 6),
    "png of 50 megapixels grey with alpha": lambda: made.png(7071, 8, 4),
    "png of 50 megapixels in 48 bits a pixel": lambda: made.png(7071, 16, 2),
    "png of 50 megapixels in 64 bits a pixel": lambda: made.png(7071, 16, 6),
    "png of 50 megapixels in 16 bits": lambda: made.png(7071, 16, 0),
    "png of 50 megapixels in one bit": lambda: made.png(7071, 1, 0),
    "png of 50 megapixels with a clear palette": lambda: made.png(
        7071, 8, 3, made.png_chunk(b"PLTE", bytes(range(256)) * 3) + made.png_chunk(b"tRNS", bytes(256))
    ),
    "png of tall 40 megapixels with alpha": lambda: made.png(3000, 8, 6, height=13_000),
    "png of compressed blocks without content": lambda: made.png_deflate_blocks(1_200_000),
    "gif of 50 megapixels with a clear colour": lambda: made.gif(7071),
    "bmp of line ends, 8 bits": lambda: made.bmp_line_ends(7071, 7071),
    "bmp of line ends, wide": lambda: made.bmp_line_ends(99_990, 500),
    "bmp of line ends, 4 bits": lambda: made.bmp_line_ends(7071, 7071, 4),
    "bmp of runs past the row": lambda: made.bmp_runs_past_the_row(7071, 7 * MEGA),
    "bmp of single pixels, 8 bits": lambda: made.bmp_single_pixels(2700, 2700),
    "bmp of single pixels, 4 bits": lambda: made.bmp_single_pixels(2700, 2700, 4),
    "webp of 12 megapixels": lambda: made.webp(3464),
    "webp of 15 megapixels": lambda: made.webp(3870),
    "webp of 20 megapixels": lambda: made.webp(4500),
    "webp of 36 megapixels": lambda: made.webp(6000),
    "webp of 50 megapixels": lambda: made.webp(7071),
    "webp head without losses of 20 megapixels": lambda: made.webp_lossless_head(4500),
    "webp of 500 frames": lambda: made.webp_frames(64, 500),
}
"""Accepted or refused, but never at more than what an image of so many pixels may take."""

HONEST = (
    *("png of 50", "png of tall", "gif of 50", "bmp of line ends", "webp of 1", "webp of 20", "webp of 36"),
    "jpeg of a first scan",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_structure_that_costs_is_refused_before_anything_is_decoded(name: str) -> None:
    maker, words = REFUSED[name]
    data = maker()
    took_s = []
    for _ in range(5):
        before_s = time.thread_time()
        with pytest.raises(BadImage) as refusal:
            OpenedImage(data, limits(), "images[2]")
        took_s.append(time.thread_time() - before_s)
    assert words in refusal.value.message and refusal.value.field == "images[2]"
    assert min(took_s) < STRUCTURE_S


@pytest.mark.parametrize("name", BOUNDED)
def test_no_file_takes_more_than_its_pixels_are_granted(name: str) -> None:
    cost = cost_of(BOUNDED[name]())
    assert cost.structure_s < 4 * STRUCTURE_S
    assert cost.cpu_s < GRANTED_S + cost.pixels * PIXEL_NS / 1e9 + NOISE_S, cost
    assert cost.grown_bytes < 200 * MIB, cost
    assert cost.refusal is None or not name.startswith(HONEST), cost


def test_what_runs_out_of_processor_time_is_told_so() -> None:
    cost = cost_of(made.png_deflate_blocks(4_000_000))  # on a fast machine too
    assert cost.refusal is not None and "more than 0.8 s of processor time" in cost.refusal


@pytest.mark.parametrize("megabytes", [20, 60])
def test_what_runs_out_of_memory_is_told_so(megabytes: int) -> None:
    cost = cost_of(made.png(3000, 8, 6), ImageSizeLimits(15 * MIB, 50 * MEGA, 100, True, megabytes * MIB))
    assert (cost.refusal is None) == (megabytes == 60)
    assert cost.refusal is None or "more than 20 MiB of memory" in cost.refusal


@pytest.mark.parametrize(("megabytes", "max_side", "needed"), [(7, 4000, 9), (6, 500, 6)])
def test_memory_that_a_progressive_jpeg_needs_is_known_before(megabytes: int, max_side: int, needed: int) -> None:
    file = made.jpeg_scans(1000, 0, components=3)
    cost_of(file, ImageSizeLimits(15 * MIB, MEGA, max_side, True, 32 * MIB))
    with pytest.raises(BadImage, match=f"about {needed} MiB of memory, and at most {megabytes} MiB"):
        OpenedImage(file, ImageSizeLimits(15 * MIB, MEGA, max_side, True, megabytes * MIB))


@pytest.mark.parametrize("url", [URL, OPENAI_URL])
def test_a_refusal_names_the_field_and_the_reason(client: FlaskClient, url: str) -> None:
    data = base64.b64encode(made.jpeg_scans(500, 100)).decode()
    if url == URL:
        response = ask(client, data)
        assert_problem(response, 400, "The image has more than 64 scans; at most 64 are accepted.")
        return
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": f"data:image/jpeg;base64,{data}"}]
    response = client.post(url, json={"messages": [{"role": "user", "content": content}]})
    assert_problem(response, 400, "more than 64 scans")
    assert response.get_json()["error"]["param"] == "messages[0].content[0].image_url"


def test_what_is_handed_to_the_decoder_holds_no_notes() -> None:
    noted = made.png_chunks(b"tEXt", 1000, b"k\0" + b"words" * 9)
    assert sum(map(len, read_structure(noted).parts)) < 1000
