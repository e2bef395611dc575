"""A second drawing program, for evaluation only: other code, fonts, colours, strokes and wear than in training."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo.pictures.drawing import Mark
from demo.pictures.scenes import EDGE, SHAPES, Scene, Thing, cell_of

FONTS = ("cmr10", "cmss10", "cmb10", "cmtt10")
SIZES_PX = ((320, 240), (400, 300), (256, 256), (300, 400), (512, 384), (640, 480), (200, 200), (480, 270))
SHADES = {
    "red": ("crimson", "#d62728", "red", "firebrick", "tab:red"),
    "green": ("forestgreen", "#2ca02c", "limegreen", "seagreen", "green"),
    "blue": ("#1f77b4", "royalblue", "navy", "dodgerblue", "blue"),
    "yellow": ("gold", "#ffd400", "yellow", "#f6e05e"),
    "purple": ("#9467bd", "darkviolet", "purple", "rebeccapurple"),
    "orange": ("#ff7f0e", "darkorange", "orange"),
    "pink": ("hotpink", "#e377c2", "pink", "palevioletred"),
    "black": ("black", "#222222"),
    "grey": ("gray", "dimgray", "#999999"),
    "brown": ("#8c564b", "saddlebrown", "sienna"),
}
SHADE_WEIGHTS = (6, 6, 6, 6, 6, 6, 6, 3, 2, 2)
GROUNDS = {
    "white": ("white", "snow", "whitesmoke"),
    "grey": ("lightgray", "silver", "#777777", "darkgray"),
    "black": ("black", "#151515"),
    "blue": ("lightblue", "skyblue", "midnightblue"),
    "green": ("palegreen", "darkgreen"),
    "yellow": ("khaki", "#fff3a0"),
    "pink": ("lightpink", "#ffd6e0"),
}
GROUND_WEIGHTS = (8, 5, 3, 2, 1, 1, 1)
LEAST_CONTRAST = 0.38  # distance of ink and ground in the unit cube of red, green and blue


def second_scene(rng: random.Random, shows: str = "", most: int = 4) -> Scene:
    """One to four things anywhere, or a number of two to four digits."""
    width, height = rng.choice(SIZES_PX)
    ground = rng.choices(list(GROUNDS), GROUND_WEIGHTS)[0]
    seed = rng.getrandbits(32)
    if shows == "number" or (not shows and rng.random() < 0.3):
        number = str(rng.randint(10, 9999)) if rng.random() < 0.5 else str(rng.randint(10, 999))
        return Scene(width, height, ground, (), number, _other_colour(rng, ground), seed, plain=False)
    things: list[Thing] = []
    n = rng.randint(1, most)
    while len(things) < n:
        radius = rng.uniform(0.09, 0.24 if n < 3 else 0.17)
        x_room, y_room = radius * min(width, height) / width + 0.02, radius * min(width, height) / height + 0.02
        x, y = rng.uniform(x_room, 1 - x_room), rng.uniform(y_room, 1 - y_room)
        on_line = any(abs(value - third) < EDGE for value in (x, y) for third in (1 / 3, 2 / 3))
        near = any(
            math.hypot((x - t.x) * width, (y - t.y) * height) < (radius + t.radius) * min(width, height) * 1.15
            for t in things
        )
        if not on_line and not near and all(cell_of(x, y) != thing.cell for thing in things):
            things.append(Thing(rng.choice(SHAPES), _other_colour(rng, ground), cell_of(x, y), x, y, radius))
    things.sort(key=lambda thing: thing.cell)
    return Scene(width, height, ground, tuple(things), "", "", seed, plain=False)


def _other_colour(rng: random.Random, ground: str) -> str:
    while (name := rng.choices(list(SHADES), SHADE_WEIGHTS)[0]) == ground:
        pass
    return name


def draw_second(scene: Scene) -> tuple[Image.Image, list[Mark]]:
    """The picture as this program draws it, with the marks of its things (none for a number)."""
    rng = random.Random(scene.drawing_seed)
    ground = colors.to_rgb(rng.choice(GROUNDS[scene.background]))
    canvas, paths = _canvas(scene, ground), []
    if scene.number:
        paths = [_number_path(rng, scene)]
        inks = [_shade(rng, scene.number_colour, ground)]
    else:
        paths = [_thing_path(rng, scene, thing) for thing in scene.things]
        inks = [_shade(rng, thing.colour, ground) for thing in scene.things]
    edge = rng.choice((0.0, 0.0, 1.5, 3.0))
    hollow = not scene.number and rng.random() < 0.15
    line = max(2.0, 0.025 * min(scene.width_px, scene.height_px))
    for path, ink in zip(paths, inks, strict=True):
        patch = PathPatch(path, facecolor="none" if hollow else ink, edgecolor=ink if hollow else "black", linewidth=0)
        patch.set_linewidth(line if hollow else 0.0 if scene.number else edge)
        canvas.figure.axes[0].add_patch(patch)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(drawn[:, :, :3].copy())
    marks = []
    for thing, path in zip(scene.things, paths, strict=False):
        box = path.get_extents()
        centre, radius = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), (box.width / 2, box.height / 2)
        marks.append(Mark(thing.shape, thing.colour, thing.cell, centre, radius))
    return _after(rng, image, marks)


def _canvas(scene: Scene, ground: tuple[float, float, float]) -> FigureCanvasAgg:
    figure = Figure(figsize=(scene.width_px / 100, scene.height_px / 100), dpi=100, facecolor=ground)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width_px)
    axes.set_ylim(scene.height_px, 0)
    axes.axis("off")
    return canvas


def _shade(rng: random.Random, name: str, ground: tuple[float, float, float]) -> tuple[float, float, float]:
    shades = [colors.to_rgb(shade) for shade in SHADES[name]]
    rng.shuffle(shades)
    return max(shades, key=lambda shade: min(LEAST_CONTRAST, math.dist(shade, ground)))


def _thing_path(rng: random.Random, scene: Scene, thing: Thing) -> Outline:
    turn = rng.uniform(-9, 9)
    unit = {
        "circle": Outline.unit_circle(),
        "square": Outline.unit_rectangle().transformed(Affine2D().translate(-0.5, -0.5).scale(1.6)),
        "triangle": Outline.unit_regular_polygon(3).transformed(Affine2D().rotate_deg(180)),
        "star": Outline.unit_regular_star(5, rng.uniform(0.36, 0.5)).transformed(Affine2D().rotate_deg(180)),
        "cross": _plus(rng.uniform(0.2, 0.36)),
    }[thing.shape]
    radius = thing.radius * min(scene.width_px, scene.height_px)
    place = Affine2D().rotate_deg(0 if thing.shape == "circle" else turn).scale(radius)
    return unit.transformed(place.translate(thing.x * scene.width_px, thing.y * scene.height_px))


def _plus(half: float) -> Outline:
    a, b = half, 1.0
    return Outline(
        [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
            (-a, -b),
        ]
    )


@lru_cache(maxsize=8)
def _font(name: str) -> FontProperties:
    return FontProperties(fname=Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")


def _number_path(rng: random.Random, scene: Scene) -> Outline:
    path = TextPath((0, 0), scene.number, size=100, prop=_font(rng.choice(FONTS)))
    box = path.get_extents()
    share = rng.uniform(0.45, 0.9)
    scale = min(scene.width_px * share / box.width, scene.height_px * 0.6 / box.height)
    width, height = box.width * scale, box.height * scale
    x = rng.uniform(0.03, 0.97) * (scene.width_px - width)
    y = rng.uniform(0.05, 0.95) * (scene.height_px - height)
    move = Affine2D().translate(-box.x0, -box.y1).scale(scale, -scale).translate(x, y)
    return path.transformed(move)


def _after(rng: random.Random, image: Image.Image, marks: list[Mark]) -> tuple[Image.Image, list[Mark]]:
    """As drawn, as a JPEG, or as a photograph of the sheet."""
    lot = rng.random()
    if lot < 0.4:
        return image, marks
    if lot < 0.65:
        return _jpeg(image, rng.randint(35, 80)), marks
    image, marks = _photographed(rng, image, marks)
    return _jpeg(image, rng.randint(55, 90)), marks


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=2)
    return Image.open(file).convert("RGB")


def _photographed(rng: random.Random, image: Image.Image, marks: list[Mark]) -> tuple[Image.Image, list[Mark]]:
    """Slightly from the side, in uneven light, with grain."""
    width, height = image.size
    off = [(rng.uniform(-0.025, 0.025) * width, rng.uniform(-0.025, 0.025) * height) for _ in range(4)]
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    seen = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(corners, off, strict=True)]
    back, forth = _homography(seen, corners), _homography(corners, seen)
    ground = image.getpixel((1, 1))
    image = image.transform(
        image.size, Image.Transform.PERSPECTIVE, back.flatten()[:8].tolist(), Image.Resampling.BICUBIC, fillcolor=ground
    )
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.002) * max(width, height)))
    y, x = np.mgrid[0:height, 0:width]
    far = ((x / width - rng.uniform(0.3, 0.7)) ** 2 + (y / height - rng.uniform(0.3, 0.7)) ** 2)[:, :, None]
    lit = np.asarray(image, np.float64) * (1.03 - rng.uniform(0.1, 0.45) * far)
    lit += np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 7), (height, width, 3))
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)), [_moved(mark, forth) for mark in marks]


def _homography(source: list[tuple[float, float]], target: list[tuple[float, float]]) -> NDArray[np.float64]:
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def _moved(mark: Mark, forth: NDArray[np.float64]) -> Mark:
    (x, y), (a, b) = mark.centre, mark.radius
    points = forth @ np.array([[x - a, x + a, x, x], [y, y, y - b, y + b], [1, 1, 1, 1]])
    points = points[:2] / points[2]
    left, right, top, bottom = points[0].min(), points[0].max(), points[1].min(), points[1].max()
    return replace(
        mark, centre=((left + right) / 2, (top + bottom) / 2), radius=((right - left) / 2, (bottom - top) / 2)
    )
