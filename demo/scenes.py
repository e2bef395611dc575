"""A scene says what a picture shows: a few coloured shapes in a 3x3 arrangement, or one number."""

from __future__ import annotations

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink")
BACKGROUNDS = ("white", "black", "grey")
ROWS = COLUMNS = 3
CELLS = ROWS * COLUMNS  # numbered in reading order
MOST_THINGS = 5
MOST_DIGITS = 4

# Most pictures are multiples of 28 so that training needs no resize; the rest exercise it.
SIDES_PX = (84, 84, 84, 112, 112, 112, 140, 140, 168, 168, 196, 224)
LARGEST_SIDE_PX = 448


@dataclass(frozen=True)
class Thing:
    """One coloured shape in one cell."""

    shape: str
    colour: str
    cell: int

    @property
    def row(self) -> int:
        return self.cell // COLUMNS

    @property
    def column(self) -> int:
        return self.cell % COLUMNS


@dataclass(frozen=True)
class Scene:
    """All that may be asked about a picture, and the seed of what may not (exact sizes, tints and offsets)."""

    width_px: int
    height_px: int
    background: str
    things: tuple[Thing, ...]  # in reading order; empty when the picture shows a number
    number: str  # empty when the picture shows things
    number_colour: str
    drawing_seed: int

    def thing_at(self, cell: int) -> Thing | None:
        return next((thing for thing in self.things if thing.cell == cell), None)


def random_scene(rng: random.Random, size_px: tuple[int, int] | None = None, crowded: bool = False) -> Scene:
    """Draw lots for a scene; `size_px` (width, height) fixes the size so that a batch can share one.

    A crowded scene holds more than is ever asked about: more to learn from a picture when only the eyes are trained.
    """
    width_px, height_px = size_px or random_size(rng)
    background = rng.choice(BACKGROUNDS)
    shows_number = rng.random() < (0.4 if crowded else 0.27)
    fewest, most = (4, CELLS) if crowded else (1, MOST_THINGS)
    things = () if shows_number else random_things(rng, fewest, most)
    number = random_number(rng, width_px, fewest) if shows_number else ""
    return Scene(
        width_px=width_px,
        height_px=height_px,
        background=background,
        things=things,
        number=number,
        number_colour=rng.choice(COLOURS) if shows_number else "",
        drawing_seed=rng.getrandbits(32),
    )


def random_size(rng: random.Random, resized: float = 0.12) -> tuple[int, int]:
    """A picture's width and height: usually multiples of 28, now and then a size that will be resized."""
    if rng.random() < resized:
        width_px = rng.randint(84, LARGEST_SIDE_PX)
        return width_px, max(84, min(LARGEST_SIDE_PX, round(width_px * rng.uniform(0.6, 1.6))))
    width_px = rng.choice(SIDES_PX)
    if rng.random() < 0.6:
        return width_px, width_px
    return width_px, rng.choice([side for side in SIDES_PX if width_px / 2 <= side <= width_px * 2])


def random_things(rng: random.Random, fewest: int, most: int) -> tuple[Thing, ...]:
    n = rng.randint(fewest, most)
    cells = sorted(rng.sample(range(CELLS), n))
    return tuple(Thing(rng.choice(SHAPES), rng.choice(COLOURS), cell) for cell in cells)


def random_number(rng: random.Random, width_px: int, fewest: int) -> str:
    """One to four digits, at least 26 pixels wide each; no leading zero."""
    most = min(MOST_DIGITS, width_px // 26)
    n = rng.randint(min(fewest, most), most)
    first = rng.choice("123456789") if n > 1 else rng.choice("0123456789")
    return first + "".join(rng.choice("0123456789") for _ in range(n - 1))
