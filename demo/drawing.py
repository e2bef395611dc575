"""A scene becomes a picture: flat shapes and our own brush-stroke digits, smoothed by supersampling."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from demo.scenes import COLUMNS, ROWS, Scene

Point = tuple[float, float]
Colour = tuple[int, int, int]

SUPERSAMPLING = 4
INK: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 165, 75),
    "blue": (45, 90, 220),
    "yellow": (248, 208, 40),
    "purple": (140, 60, 185),
    "orange": (245, 130, 25),
    "pink": (250, 145, 195),
}
PAPER: dict[str, Colour] = {"white": (250, 250, 250), "black": (10, 10, 10), "grey": (128, 128, 128)}
TINT = 10  # how far a channel may stray


@dataclass(frozen=True)
class Mark:
    """Where one shape or digit was drawn, in pixels: what the training's helper task must find."""

    name: str
    colour: str
    place: int  # the cell of a shape; the rank of a digit
    centre: Point
    radius: Point


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene; the same scene always gives the same pixels."""
    return draw_marked(scene)[0]


def draw_marked(scene: Scene) -> tuple[Image.Image, list[Mark]]:
    """The picture, and where each shape or digit stands in it."""
    rng = random.Random(scene.drawing_seed)
    image = Image.new("RGB", (scene.width_px, scene.height_px), _lightened(rng, PAPER[scene.background]))
    marks = _number_marks(rng, scene) if scene.number else _thing_marks(rng, scene)
    number_ink = _tinted(rng, INK[scene.number_colour]) if scene.number else (0, 0, 0)
    for mark in marks:
        ink = number_ink if scene.number else _tinted(rng, INK[mark.colour])
        _stamp(image, mark, ink, turn=rng.uniform(-0.12, 0.12))
    return image, marks


def _thing_marks(rng: random.Random, scene: Scene) -> list[Mark]:
    cell_width, cell_height = scene.width_px / COLUMNS, scene.height_px / ROWS
    marks = []
    for thing in scene.things:
        radius = min(cell_width, cell_height) * rng.uniform(0.32, 0.44)
        slack_x, slack_y = cell_width / 2 - radius, cell_height / 2 - radius
        x = (thing.column + 0.5) * cell_width + rng.uniform(-0.6, 0.6) * slack_x
        y = (thing.row + 0.5) * cell_height + rng.uniform(-0.6, 0.6) * slack_y
        marks.append(Mark(thing.shape, thing.colour, thing.cell, (x, y), (radius, radius)))
    return marks


def _number_marks(rng: random.Random, scene: Scene) -> list[Mark]:
    n = len(scene.number)
    pitch = min(scene.width_px / n, scene.height_px * 0.62) * rng.uniform(0.82, 0.98)
    radius_x = pitch * 0.36
    radius_y = min(radius_x * rng.uniform(1.4, 1.8), scene.height_px * 0.46)
    x = scene.width_px / 2 + rng.uniform(-0.45, 0.45) * (scene.width_px - n * pitch)
    y = scene.height_px / 2 + rng.uniform(-0.45, 0.45) * (scene.height_px - 2 * radius_y)
    return [
        Mark(digit, scene.number_colour, rank, (x + (rank - (n - 1) / 2) * pitch, y), (radius_x, radius_y))
        for rank, digit in enumerate(scene.number)
    ]


def _stamp(image: Image.Image, mark: Mark, ink: Colour, turn: float) -> None:
    """Draw one mark with smooth edges: a large mask, scaled down, through which the ink is pasted."""
    left, top = math.floor(mark.centre[0] - mark.radius[0]) - 1, math.floor(mark.centre[1] - mark.radius[1]) - 1
    width = math.ceil(mark.centre[0] + mark.radius[0]) + 1 - left
    height = math.ceil(mark.centre[1] + mark.radius[1]) + 1 - top
    mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
    pen = ImageDraw.Draw(mask)

    def place(point: Point) -> Point:
        """From the unit box (-1 to 1) to the mask's pixels."""
        x = mark.centre[0] + mark.radius[0] * point[0] - left
        y = mark.centre[1] + mark.radius[1] * point[1] - top
        return x * SUPERSAMPLING, y * SUPERSAMPLING

    if mark.name in DIGIT_STROKES:
        thickness = mark.radius[0] * 0.42 * SUPERSAMPLING
        for stroke in DIGIT_STROKES[mark.name]:
            _pull_brush(pen, [place(point) for point in stroke], thickness)
    elif mark.name == "circle":
        pen.ellipse([place((-1, -1)), place((1, 1))], fill=255)
    else:
        pen.polygon([place(_turned(point, turn)) for point in OUTLINES[mark.name]], fill=255)
    image.paste(ink, (left, top), mask.resize((width, height), Image.Resampling.BOX))


def _pull_brush(pen: ImageDraw.ImageDraw, points: list[Point], thickness: float) -> None:
    """A line with round ends and joints."""
    pen.line(points, fill=255, width=max(1, round(thickness)))
    for x, y in points:
        r = thickness / 2
        pen.ellipse([x - r, y - r, x + r, y + r], fill=255)


def _tinted(rng: random.Random, colour: Colour) -> Colour:
    red, green, blue = (max(0, min(255, channel + rng.randint(-TINT, TINT))) for channel in colour)
    return red, green, blue


def _lightened(rng: random.Random, colour: Colour) -> Colour:
    """Paper stays neutral: one offset for all channels."""
    offset = rng.randint(-TINT, TINT)
    red, green, blue = (max(0, min(255, channel + offset)) for channel in colour)
    return red, green, blue


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
