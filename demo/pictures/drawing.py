"""A scene becomes a picture: shapes and digits with every stroke, size, font and edge that the seed has in store.

A plain scene is flat, clean and smooth. Any other may be drawn larger and scaled down, without smoothing, in outline,
in a printed font or with our own brush, and worn afterwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

from demo.pictures.colours import Colour, ink, paper
from demo.pictures.lettering import bolder, digit_mask, random_font, slanted
from demo.pictures.scenes import COLUMNS, ROWS, Scene, Thing
from demo.pictures.wear import worn

Point = tuple[float, float]

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Mark:
    """Where one shape or digit was drawn, in pixels: what the training's helper task must find."""

    name: str
    colour: str
    place: int  # the cell of a shape; the rank of a digit
    centre: Point
    radius: Point  # half the width and half the height of what is seen


@dataclass(frozen=True)
class Pen:
    """How the marks of one picture are made."""

    smooth: int = SUPERSAMPLING  # pixels of the mask to a pixel of the picture, along each axis
    outline: float = 0.0  # width of a line as part of the radius; 0 fills the shape
    rim: Colour | None = None  # a thin line of another colour around a filled shape
    font: str | None = None  # a font file, or "" for Pillow's own; None is our brush
    slant: float = 0.0
    weight: int = 0
    brush: float = 0.42  # of the digit's half width


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene; the same scene always gives the same pixels."""
    return draw_marked(scene)[0]


def draw_marked(scene: Scene) -> tuple[Image.Image, list[Mark]]:
    """The picture, and where each shape or digit stands in it."""
    rng = random.Random(scene.drawing_seed)
    scale = 1.0 if scene.plain else rng.choice((1.0, 1.0, 1.0, 1.5, 2.3))
    size = round(scene.width_px * scale), round(scene.height_px * scale)
    background = paper(rng, scene.background)
    image = Image.new("RGB", size, background)
    pen = Pen() if scene.plain else random_pen(rng, background)
    marks, _ = put(rng, scene, image, background, pen)
    if scale != 1.0:
        kind = rng.choice((Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS))
        image = image.resize((scene.width_px, scene.height_px), kind)
        marks = [_scaled(mark, 1 / scale) for mark in marks]
    return image if scene.plain else worn(rng, image), marks


def put(
    rng: random.Random,
    scene: Scene,
    image: Image.Image,
    background: Colour,
    pen: Pen,
    inks: list[Colour] | None = None,
) -> tuple[list[Mark], list[Colour]]:
    """Draw a scene's marks on an image; say where they are and in what colours. `inks` are an earlier frame's."""
    marks, chosen = [], []
    if scene.number:
        number_ink = ink(rng, scene.number_colour, background)
        slots = _number_slots(rng, scene.number, image.size, pen)
        for slot in slots:
            marks.append(_stamp(image, slot, number_ink, pen, rng.uniform(-0.1, 0.1)))
        return marks, [number_ink]
    for i, thing in enumerate(scene.things):
        chosen.append(inks[i] if inks else ink(rng, thing.colour, background))
        marks.append(_stamp(image, _slot(rng, thing, image.size), chosen[i], pen, _turn(rng, thing.shape)))
    return marks, chosen


def random_pen(rng: random.Random, background: Colour) -> Pen:
    """Strokes, edges and lettering of one picture."""
    rim: Colour | None = None
    if rng.random() < 0.12:
        rim = (0, 0, 0) if sum(background) > 360 else (255, 255, 255)
    return Pen(
        smooth=rng.choice((1, 2, 4)),
        outline=rng.uniform(0.12, 0.4) if rng.random() < 0.14 else 0.0,
        rim=rim,
        font=random_font(rng) if rng.random() < 0.8 else None,
        slant=rng.uniform(-0.12, 0.3) if rng.random() < 0.2 else 0.0,
        weight=rng.choice((-3, -2, 2, 3, 5)) if rng.random() < 0.3 else 0,
        brush=rng.uniform(0.16, 0.55),
    )


def _slot(rng: random.Random, thing: Thing, size: tuple[int, int]) -> Mark:
    """Where a thing goes: where it says, or around the middle of its cell."""
    width, height = size
    if thing.x >= 0:
        radius = thing.radius * min(width, height)
        return Mark(thing.shape, thing.colour, thing.cell, (thing.x * width, thing.y * height), (radius, radius))
    cell_width, cell_height = width / COLUMNS, height / ROWS
    radius = min(cell_width, cell_height) * rng.uniform(0.32, 0.44)
    x = (thing.column + 0.5) * cell_width + rng.uniform(-0.6, 0.6) * (cell_width / 2 - radius)
    y = (thing.row + 0.5) * cell_height + rng.uniform(-0.6, 0.6) * (cell_height / 2 - radius)
    return Mark(thing.shape, thing.colour, thing.cell, (x, y), (radius, radius))


def _number_slots(rng: random.Random, number: str, size: tuple[int, int], pen: Pen) -> list[Mark]:
    """Where each digit goes, all of one height."""
    width, height = size
    n = len(number)
    largest = min(width * 0.94 / n, height * 0.62)
    pitch = max(min(largest, 13.0 * width / 168), largest * rng.triangular(0.3, 1.0, 0.9))
    stretch = rng.uniform(0.85, 1.2)
    slots: list[Mark] = []
    if pen.font is None:
        radius_x = pitch * 0.36
        radius_y = min(radius_x * rng.uniform(1.4, 1.8), height * 0.46)
        shapes = [(radius_x, radius_y)] * n
        gaps = pitch - 2 * radius_x
    else:
        masks = [digit_mask(pen.font, digit) for digit in number]
        tallest = max(mask.height for mask in masks)
        widest = max(mask.width for mask in masks)
        unit = min(pitch * 0.88 / (widest * stretch), height * 0.9 / tallest)
        shapes = [(mask.width * unit * stretch / 2, mask.height * unit / 2) for mask in masks]
        gaps = widest * unit * rng.uniform(0.08, 0.3)
        radius_y = tallest * unit / 2
    whole = sum(2 * shape[0] for shape in shapes) + gaps * (n - 1)
    if whole > width * 0.97:
        shapes = [(a * width * 0.97 / whole, b * width * 0.97 / whole) for a, b in shapes]
        gaps, radius_y, whole = gaps * width * 0.97 / whole, radius_y * width * 0.97 / whole, width * 0.97
    off = rng.choice((0.0, rng.uniform(-0.48, 0.48)))
    x = width / 2 + off * (width - whole) - whole / 2
    y = height / 2 + rng.choice((0.0, rng.uniform(-0.48, 0.48))) * (height - 2 * radius_y)
    for rank, (digit, (half, tall)) in enumerate(zip(number, shapes, strict=True)):
        slots.append(Mark(digit, "", rank, (x + half, y + radius_y - tall), (half, tall)))
        x += 2 * half + gaps
    return slots


def _turn(rng: random.Random, shape: str) -> float:
    """Upright with a tremble; now and then turned so far that the shape is still called by its name."""
    tremble = rng.uniform(-0.12, 0.12)
    if rng.random() < 0.1:
        return tremble + {"triangle": rng.choice((0.5, 1.0, 1.5)), "cross": 0.25, "star": 0.2}.get(shape, 0.0) * math.pi
    return tremble


def _stamp(image: Image.Image, slot: Mark, colour: Colour, pen: Pen, turn: float) -> Mark:
    """Paint one mark through a mask that is drawn larger and scaled down; say what of the picture it covers."""
    (x, y), (radius_x, radius_y) = slot.centre, slot.radius
    left, top = math.floor(x - radius_x) - 1, math.floor(y - radius_y) - 1
    width, height = math.ceil(x + radius_x) + 1 - left, math.ceil(y + radius_y) + 1 - top
    if slot.name.isdigit() and pen.font is not None:
        mask = bolder(slanted(digit_mask(pen.font, slot.name), pen.slant), pen.weight)
        mask = mask.resize((max(2, round(2 * radius_x)), max(3, round(2 * radius_y))), Image.Resampling.BOX)
        left, top = round(x - radius_x), round(y - radius_y)
        image.paste(colour, (left, top), mask)
        return slot

    def place(point: Point) -> Point:
        """From the unit box (-1 to 1) to the mask's pixels."""
        return (x + radius_x * point[0] - left) * pen.smooth, (y + radius_y * point[1] - top) * pen.smooth

    mask = Image.new("L", (width * pen.smooth, height * pen.smooth), 0)
    brush = ImageDraw.Draw(mask)
    if slot.name.isdigit():
        for stroke in DIGIT_STROKES[slot.name]:
            _pull_brush(brush, [place(point) for point in stroke], radius_x * pen.brush * pen.smooth)
    else:
        line = max(1, round(pen.outline * radius_x * pen.smooth)) if pen.outline else 0
        _shape(brush, slot.name, place, turn, line)
    small = mask.resize((width, height), Image.Resampling.BOX) if pen.smooth > 1 else mask
    if pen.rim and not pen.outline:
        image.paste(pen.rim, (left, top), small.filter(ImageFilter.MaxFilter(3)))
    image.paste(colour, (left, top), small)
    if slot.name.isdigit():
        return slot
    box = mask.getbbox() or (0, 0, *mask.size)
    x1, y1, x2, y2 = (value / pen.smooth for value in box)
    return Mark(
        slot.name, slot.colour, slot.place, (left + (x1 + x2) / 2, top + (y1 + y2) / 2), ((x2 - x1) / 2, (y2 - y1) / 2)
    )


def _shape(brush: ImageDraw.ImageDraw, name: str, place: Callable[[Point], Point], turn: float, line: int) -> None:
    if name == "circle":
        box = [place((-1, -1)), place((1, 1))]
        if line:
            brush.ellipse(box, outline=255, width=line)
        else:
            brush.ellipse(box, fill=255)
        return
    points = [place(_turned(point, turn)) for point in OUTLINES[name]]
    if line:
        brush.line([*points, points[0], points[1]], fill=255, width=line, joint="curve")
    else:
        brush.polygon(points, fill=255)


def _scaled(mark: Mark, scale: float) -> Mark:
    (x, y), (a, b) = mark.centre, mark.radius
    return Mark(mark.name, mark.colour, mark.place, (x * scale, y * scale), (a * scale, b * scale))


def _pull_brush(pen: ImageDraw.ImageDraw, points: list[Point], thickness: float) -> None:
    """A line with round ends and joints."""
    pen.line(points, fill=255, width=max(1, round(thickness)))
    for x, y in points:
        r = thickness / 2
        pen.ellipse([x - r, y - r, x + r, y + r], fill=255)


def _turned(point: Point, angle: float) -> Point:
    x, y = point
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _arc(x: float, y: float, radius_x: float, radius_y: float, start: float, end: float) -> tuple[Point, ...]:
    """An arc as a polyline; angles in degrees, clockwise from the right because y points down."""
    steps = 16
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return tuple((x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in angles)


def _polar(n: int, radii: tuple[float, ...], down: float = 0.0) -> tuple[Point, ...]:
    """n points around a centre, the first on top."""
    return tuple(
        (
            radii[i % len(radii)] * math.sin(2 * math.pi * i / n),
            down - radii[i % len(radii)] * math.cos(2 * math.pi * i / n),
        )
        for i in range(n)
    )


def _cross(reach: float, half: float) -> tuple[Point, ...]:
    """A plus sign whose arms reach so far and are twice `half` wide: one arm's three corners, turned four times."""
    corners = ((-half, -reach), (half, -reach), (half, -half))
    return tuple(
        (x * turn[0] - y * turn[1], x * turn[1] + y * turn[0])
        for turn in ((1, 0), (0, 1), (-1, 0), (0, -1))
        for x, y in corners
    )


OUTLINES: dict[str, tuple[Point, ...]] = {
    "square": ((-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)),
    "triangle": _polar(3, (1.0,), down=0.12),
    "star": _polar(10, (1.0, 0.42), down=0.04),
    "cross": _cross(0.92, 0.276),
}

# The strokes keep 0.2 from the edge in x and 0.13 in y so that the brush's half width stays inside.
_L, _R, _T, _B = -0.76, 0.76, -0.84, 0.84
# A digit is a few strokes in the unit box; curves are polylines.
DIGIT_STROKES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "0": (_arc(0, 0, _R, _B, 0, 360),),
    "1": (((-0.45, -0.5), (0.1, _T), (0.1, _B)),),
    "2": ((*_arc(0, -0.36, _R, 0.48, 190, 380), (_L, _B), (_R, _B)),),
    "3": (_arc(-0.06, -0.42, 0.7, 0.42, 200, 450), _arc(-0.06, 0.42, 0.8, 0.42, 270, 520)),
    "4": (((0.3, _B), (0.3, _T), (_L, 0.35), (_R, 0.35)),),
    "5": (((0.66, _T), (-0.6, _T), (-0.66, -0.1)), _arc(-0.04, 0.3, 0.78, 0.54, 215, 500)),
    "6": (_arc(0, 0.32, 0.74, 0.52, 0, 360), ((0.45, _T), (-0.2, -0.5), (-0.7, 0.2))),
    "7": (((_L, _T), (_R, _T), (-0.2, _B)),),
    "8": (_arc(0, -0.42, 0.62, 0.42, 0, 360), _arc(0, 0.42, _R, 0.42, 0, 360)),
    "9": (_arc(0, -0.32, 0.74, 0.52, 0, 360), ((0.7, -0.2), (0.2, 0.5), (-0.45, _B))),
}
