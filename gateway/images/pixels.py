"""A file whose structure was checked becomes upright RGB pixels, in bands where a whole copy would weigh too much.

Runs in a decoding process, which imports nothing but Pillow. What it makes of an honest file is, bit by bit, what
Pillow's own conversion and resizing of the whole image would be.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import IO

from PIL import Image, WebPImagePlugin

from gateway.images.bmp_rle import RunLengthDecoder
from gateway.images.heif import DecodedHeif
from gateway.images.job import Job
from gateway.images.jpeg import END, FILLED_UP
from gateway.images.png_bands import png_bands
from gateway.images.webp import LARGE_STILL_PIXELS, is_still
from gateway.images.webp_rows import DecodedWebp

LARGE_PIXELS = 4_000_000
"""An image of more pixels is converted in bands, if it has to be converted."""
HUGE_PIXELS = 16_000_000
"""A PNG of more pixels is also decoded in bands, where that saves memory; it takes a fifth more time."""
STILL_PIXELS = LARGE_STILL_PIXELS
BAND_PIXELS = 250_000

_WHITE = (255, 255, 255, 255)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BICUBIC = Image.Resampling.BICUBIC
_REDUCING_GAP = 3


def prepare_for(kind: str) -> None:
    """Before a file of this kind: loads what decodes it, which is not the file's to pay for."""
    if kind == "AVIF":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    elif kind == "HEIF":
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]  # noqa: F401


def prepare() -> None:
    """Once in a process: our decoder in place of Pillow's, and no second opinion on sizes, which were checked."""
    Image.preinit()
    Image.register_decoder("bmp_rle", RunLengthDecoder)
    Image.OPEN["WEBP"] = (_OneFrame, Image.OPEN["WEBP"][1])
    Image.MAX_IMAGE_PIXELS = None


def final_pixels(file: IO[bytes], job: Job) -> Image.Image:
    """The RGB image that the model reads; raises almost anything for a file that is not whole."""
    image = _final_pixels(file, job)
    if job.kind == "JPEG":
        file.seek(0)
        data = file.read()
        if data.endswith(FILLED_UP) and image != _final_pixels(io.BytesIO(data[: -len(FILLED_UP)] + END), job):
            raise ValueError("what stands for the missing end can be seen")
    return image


def _final_pixels(file: IO[bytes], job: Job) -> Image.Image:
    image, final = upright_pixels(file, job), (job.final_width, job.final_height)
    return image if image.size == final else image.resize(final, _BICUBIC)


def upright_pixels(file: IO[bytes], job: Job) -> Image.Image:
    """The upright RGB image of the first frame; raises almost anything for a file that is not whole."""
    turn, size = _UPRIGHT.get(job.orientation), (job.upright_width, job.upright_height)
    stored = job.width, job.height
    if job.kind == "HEIF":
        return _of_rows(DecodedHeif(file), stored, size, turn)
    if job.kind == "WEBP" and _pixels(stored) > STILL_PIXELS:
        rows = _large_still(file, stored)
        if rows is not None:
            return _of_rows(rows, stored, size, turn)
    with Image.open(file, formats=(job.kind,)) as image:
        if image.size != (job.width, job.height):
            raise ValueError("another size than the structure has")
        if job.draft_width:
            image.draft(None, (job.draft_width, job.draft_height))
        stored = image.size
        if _pixels(stored) <= LARGE_PIXELS or _is_rgb_throughout(image):
            whole = as_rgb(image)
        elif turn is None and (_factors(stored, size) != (1, 1) or _goes_across_first(stored, size)):
            return _shrunk(_bands(image, file), stored, size)
        else:
            whole = _joined(_bands(image, file), stored)
    return _upright(whole, size, turn)


def _upright(whole: Image.Image, size: tuple[int, int], turn: Image.Transpose | None) -> Image.Image:
    whole = whole if turn is None else whole.transpose(turn)
    return whole if whole.size == size else whole.resize(size, _BICUBIC, reducing_gap=_REDUCING_GAP)


def _large_still(file: IO[bytes], stored: tuple[int, int]) -> DecodedWebp | None:
    """None for a film, and where libwebp can only be reached through Pillow."""
    data = file.read()
    file.seek(0)
    try:
        return DecodedWebp(data, stored) if is_still(data[12:32]) else None
    except OSError:
        return None


def _of_rows(
    image: DecodedHeif | DecodedWebp, stored: tuple[int, int], size: tuple[int, int], turn: Image.Transpose | None
) -> Image.Image:
    if image.size != stored:
        raise ValueError("another size than the structure has")
    bands = map(as_rgb, image.bands(max(1, BAND_PIXELS // stored[0])))
    if turn is None and stored != size and (_factors(stored, size) != (1, 1) or _goes_across_first(stored, size)):
        return _shrunk(bands, stored, size)
    return _upright(_joined(bands, stored), size, turn)


def _is_rgb_throughout(image: Image.Image) -> bool:
    """Whether there is nothing to convert, and nothing to gain by decoding in bands."""
    is_huge = image.format == "PNG" and _pixels(image.size) > HUGE_PIXELS
    return image.mode == "RGB" and not image.has_transparency_data and not is_huge


class _OneFrame(WebPImagePlugin.WebPImageFile):
    """Lets go of libwebp's two canvases once it has the first frame, before that is copied."""

    def _get_next(self) -> tuple[bytes, int, int]:
        frame = super()._get_next()
        self._decoder = None
        return frame


def _bands(image: Image.Image, file: IO[bytes]) -> Iterator[Image.Image]:
    """The image in RGB bands from top to bottom, each of as many rows but for the last."""
    rows = max(1, BAND_PIXELS // image.width)
    bands = png_bands(image, file, rows) if _pixels(image.size) > HUGE_PIXELS else None
    if bands is None:
        image.load()
        edges = range(0, image.height, rows)
        bands = (image.crop((0, top, image.width, min(top + rows, image.height))) for top in edges)
    return map(as_rgb, bands)


def _joined(bands: Iterator[Image.Image], size: tuple[int, int]) -> Image.Image:
    first = next(bands)  # before there is room for all: a file may have none
    whole, top = Image.new("RGB", size), 0
    for band in chain((first,), bands):
        whole.paste(band, (0, top))
        top += band.height
    return whole


def _factors(stored: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """By which whole numbers Pillow reduces an image first, across and down."""
    return int(stored[0] / size[0] / _REDUCING_GAP) or 1, int(stored[1] / size[1] / _REDUCING_GAP) or 1


def _goes_across_first(stored: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether Pillow makes an image smaller across before it does so down: not where that drops far more rows."""
    columns, rows = stored[0] - size[0], stored[1] - size[1]
    return columns > 0 and rows <= 2 * columns


def _shrunk(bands: Iterator[Image.Image], stored: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """What resizing the whole image with the same filter would give, bit by bit.

    Pillow resizes across and then down, and reduces by whole numbers before where an image is far larger, so each band
    can be done by itself until the step down.
    """
    across, down = _factors(stored, size)
    if across == down == 1:
        narrow = (band.resize((size[0], band.height), _BICUBIC) for band in bands)
        return _joined(narrow, (size[0], stored[1])).resize(size, _BICUBIC)
    reduced_size = -(-stored[0] // across), -(-stored[1] // down)
    reduced = _joined((band.reduce((across, down)) for band in _regrouped(bands, down)), reduced_size)
    return reduced.resize(size, _BICUBIC, box=(0, 0, stored[0] / across, stored[1] / down))


def _regrouped(bands: Iterator[Image.Image], rows: int) -> Iterator[Image.Image]:
    """The same rows in bands of a multiple of `rows`, but for the last."""
    rest: Image.Image | None = None
    for band in bands:
        if rest is not None:
            band = _joined(iter((rest, band)), (band.width, rest.height + band.height))
        whole = band.height // rows * rows
        rest = band.crop((0, whole, band.width, band.height)) if whole < band.height else None
        if whole:
            yield band.crop((0, 0, band.width, whole))
    if rest is not None:
        yield rest


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, over white where it is transparent."""
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips instead of scaling
        high_bytes = image.tobytes()[1::2]
        return Image.frombytes("L", image.size, high_bytes).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]
