"""A scene says what a picture shows: a few coloured shapes anywhere in it, or one number."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.pictures.colours import random_background, random_colour

SHAPES = ("circle", "square", "triangle", "star", "cross")
ROWS = COLUMNS = 3
CELLS = ROWS * COLUMNS  # thirds of the picture, numbered in reading order
MOST_THINGS = 5
MOST_DIGITS = 4
THINGS_WEIGHTS = [26, 26, 20, 16, 12]  # of one thing, two, ...
# Multiples of 28, so that training needs no resize.
SIDES_PX = (84, 112, 112, 112, 140, 140, 168, 168, 196, 224, 252)
MOST_PIXELS = 224 * 224
PLAIN = 0.25  # of the pictures are flat, clean and in the grid
PLAIN_BACKGROUNDS = ("white", "black", "grey")
EDGE = 0.03  # how close to the line between two thirds a centre may lie, as part of the picture


@dataclass(frozen=True)
class Thing:
    """One coloured shape: its centre and its radius are parts of the width, the height and the shorter side."""

    shape: str
    colour: str
    cell: int  # the third of the picture that holds its centre
    x: float = -1.0  # negative: somewhere around the middle of its cell, as the drawing's seed has it
    y: float = -1.0
    radius: float = 0.0

    @property
    def row(self) -> int:
        return self.cell // COLUMNS

    @property
    def column(self) -> int:
        return self.cell % COLUMNS


@dataclass(frozen=True)
class Scene:
    """All that may be asked about a picture, and the seed of what may not (exact sizes, tints, strokes, wear)."""

    width_px: int
    height_px: int
    background: str
    things: tuple[Thing, ...]  # in reading order; empty when the picture shows a number
    number: str  # empty when the picture shows things
    number_colour: str
    drawing_seed: int
    plain: bool = True  # flat, clean and upright

    def thing_at(self, cell: int) -> Thing | None:
        """The one thing in this cell; None where there is none."""
        return next((thing for thing in self.things if thing.cell == cell), None)


def random_scene(
    rng: random.Random, size_px: tuple[int, int] | None = None, crowded: bool = False, shows: str = ""
) -> Scene:
    """Draw lots for a scene; `size_px` (width, height) fixes the size so that a batch can share one.

    A crowded scene holds more than is ever asked about: more to learn from a picture when only the eyes are trained.
    `shows` is "things" or "number"; empty leaves it to the lot.
    """
    width_px, height_px = size_px or random_size(rng)
    plain = rng.random() < PLAIN
    background = rng.choice(PLAIN_BACKGROUNDS) if plain else random_background(rng)
    shows_number = shows == "number" or (not shows and rng.random() < (0.4 if crowded else 0.27))
    fewest, most = (4, CELLS) if crowded else (1, MOST_THINGS)
    things = () if shows_number else random_things(rng, background, width_px / height_px, fewest, most, plain)
    number = random_number(rng, width_px, fewest) if shows_number else ""
    return Scene(
        width_px=width_px,
        height_px=height_px,
        background=background,
        things=things,
        number=number,
        number_colour=random_colour(rng, background) if shows_number else "",
        drawing_seed=rng.getrandbits(32),
        plain=plain,
    )


def random_size(rng: random.Random) -> tuple[int, int]:
    """A picture's width and height, multiples of 28."""
    if rng.random() < 0.3:
        return rng.choice(((252, 196), (224, 224), (196, 252), (280, 168), (196, 196)))
    while True:
        width_px = rng.choice(SIDES_PX)
        if rng.random() < 0.5:
            height_px = width_px
        else:
            height_px = rng.choice([side for side in SIDES_PX if width_px / 2 <= side <= width_px * 2])
        if width_px * height_px <= MOST_PIXELS:
            return width_px, height_px


def random_things(
    rng: random.Random, background: str, aspect: float, fewest: int, most: int, plain: bool = False
) -> tuple[Thing, ...]:
    if fewest > 1 or plain:
        n, layout = rng.randint(fewest, most), "grid"
    else:
        n = rng.choices(range(1, most + 1), THINGS_WEIGHTS[:most])[0]
        layout = rng.choices(("grid", "free", "line"), (30, 52, 18))[0]
    places = {"grid": _grid, "free": _free, "line": _line}[layout](rng, n, aspect)
    things = [Thing(rng.choice(SHAPES), random_colour(rng, background), cell_of(x, y), x, y, r) for x, y, r in places]
    return tuple(sorted(things, key=lambda thing: (thing.cell, thing.x, thing.y)))


def cell_of(x: float, y: float) -> int:
    return min(ROWS - 1, int(y * ROWS)) * COLUMNS + min(COLUMNS - 1, int(x * COLUMNS))


Place = tuple[float, float, float]  # x, y, radius as a Thing has them


def _grid(rng: random.Random, n: int, aspect: float) -> list[Place]:
    """In the cells of the 3x3 grid, off their middles as far as the size allows."""
    across, down = max(1.0, aspect), max(1.0, 1 / aspect)  # sides in shorter sides
    places = []
    for cell in rng.sample(range(CELLS), n):
        radius = rng.uniform(0.2, 0.44) / 3
        slack_x, slack_y = 1 / 6 - radius / across - 0.01, 1 / 6 - radius / down - 0.01
        x = (cell % COLUMNS + 0.5) / 3 + rng.uniform(-1, 1) * max(0, slack_x) * 0.8
        y = (cell // COLUMNS + 0.5) / 3 + rng.uniform(-1, 1) * max(0, slack_y) * 0.8
        places.append((x, y, radius))
    return places


def _free(rng: random.Random, n: int, aspect: float) -> list[Place]:
    """Anywhere, of any size, apart from one another."""
    across, down = max(1.0, aspect), max(1.0, 1 / aspect)
    largest = (0.4, 0.26, 0.2, 0.17, 0.15)[n - 1]
    places: list[Place] = []
    tries = 0
    while len(places) < n:
        tries += 1
        radius = rng.uniform(0.06, largest) if tries < 60 else rng.uniform(0.05, 0.09)
        x = rng.uniform(radius / across + 0.01, 1 - radius / across - 0.01)
        y = rng.uniform(radius / down + 0.01, 1 - radius / down - 0.01)
        if any(abs(value - line) < EDGE for value in (x, y) for line in (1 / 3, 2 / 3)):
            continue
        apart = (((x - a) * across) ** 2 + ((y - b) * down) ** 2 > ((radius + c) * 1.12) ** 2 for a, b, c in places)
        if all(apart):
            places.append((x, y, radius))
    return places


def _line(rng: random.Random, n: int, aspect: float) -> list[Place]:
    """Side by side, or one above the other."""
    across, down = max(1.0, aspect), max(1.0, 1 / aspect)
    stacked = rng.random() < 0.3
    length = down if stacked else across
    radius = min(length / n * 0.5, 0.45) * rng.uniform(0.45, 0.88)
    level = rng.choice((0.5, 0.5, 0.5, rng.uniform(0.37, 0.63)))
    radius = min(radius, min(level, 1 - level) * 0.95)
    places = []
    for i in range(n):
        along = (i + 0.5) / n + rng.uniform(-0.02, 0.02)
        along += next((0.035 if along >= line else -0.035 for line in (1 / 3, 2 / 3) if abs(along - line) < EDGE), 0)
        places.append((level, along, radius) if stacked else (along, level, radius))
    return places


def random_number(rng: random.Random, width_px: int, fewest: int) -> str:
    """One to four digits, at least 22 pixels wide each; no leading zero."""
    most = min(MOST_DIGITS, width_px // 22)
    n = rng.randint(min(fewest, most), most)
    first = rng.choice("123456789") if n > 1 else rng.choice("0123456789")
    return first + "".join(rng.choice("0123456789") for _ in range(n - 1))
