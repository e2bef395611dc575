"""Digits in printed fonts, stretched and slanted, as masks to paint through."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# Fonts that matplotlib carries; its Computer Modern family is left to the second drawing program.
FAMILIES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
PILLOWS_OWN = ""  # the font that Pillow carries
MASK_PX = 96
_more_fonts: list[str] = []


def use_more_fonts(folder: Path) -> None:
    """Draw with every font file of this folder too; what was drawn before can no longer be drawn again."""
    _more_fonts[:] = sorted(str(path) for pattern in ("*.ttf", "*.otf") for path in folder.glob(pattern))


@lru_cache(maxsize=1)
def carried_fonts() -> tuple[str, ...]:
    """Files of the fonts that come with the installed libraries, the same on each machine."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = sorted(
        path
        for path in folder.glob("*.ttf")
        if path.stem.split("-")[0].startswith(FAMILIES) and "Display" not in path.stem
    )
    return (PILLOWS_OWN, PILLOWS_OWN, *(str(path) for path in paths))


def random_font(rng: random.Random) -> str:
    fonts = carried_fonts()
    return rng.choice(_more_fonts) if _more_fonts and rng.random() < 0.5 else rng.choice(fonts)


@lru_cache(maxsize=4096)
def digit_mask(font: str, digit: str) -> Image.Image:
    """One digit, cropped to its ink and about 96 pixels high."""
    face = ImageFont.load_default(MASK_PX) if font == PILLOWS_OWN else _face(font)
    canvas = Image.new("L", (3 * MASK_PX, 3 * MASK_PX), 0)
    ImageDraw.Draw(canvas).text((MASK_PX, MASK_PX), digit, fill=255, font=face)
    box = canvas.getbbox()
    return canvas.crop(box) if box else Image.new("L", (MASK_PX // 2, MASK_PX), 0)


@lru_cache(maxsize=256)
def _face(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, MASK_PX)


def slanted(mask: Image.Image, slant: float) -> Image.Image:
    """Lean a mask to the right by `slant` of its height."""
    if abs(slant) < 0.02:
        return mask
    width, height = mask.size
    wider = width + int(abs(slant) * height) + 1
    start = -slant * height if slant > 0 else 0.0  # of the first line, in pixels of the mask
    return mask.transform(
        (wider, height), Image.Transform.AFFINE, (1, slant, start, 0, 1, 0), Image.Resampling.BILINEAR
    )


def bolder(mask: Image.Image, steps: int) -> Image.Image:
    """Thicker strokes for a positive number, thinner ones for a negative."""
    if steps > 0:
        return mask.filter(ImageFilter.MaxFilter(2 * steps + 1))
    return mask.filter(ImageFilter.MinFilter(-2 * steps + 1)) if steps < 0 else mask
