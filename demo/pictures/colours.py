"""Colour names and the values that people call by them."""

from __future__ import annotations

import random

Colour = tuple[int, int, int]

INK: dict[str, tuple[Colour, ...]] = {
    "red": ((220, 40, 40), (255, 0, 0), (200, 20, 30), (230, 60, 50), (180, 20, 20)),
    "green": ((40, 165, 75), (0, 128, 0), (0, 200, 0), (34, 139, 34), (60, 180, 75), (0, 255, 0)),
    "blue": ((45, 90, 220), (0, 0, 255), (30, 60, 200), (30, 130, 255), (0, 0, 160), (65, 105, 225)),
    "yellow": ((248, 208, 40), (255, 255, 0), (255, 225, 25), (255, 215, 0), (240, 230, 60)),
    "purple": ((140, 60, 185), (128, 0, 128), (145, 30, 180), (150, 80, 220), (110, 40, 160)),
    "orange": ((245, 130, 25), (255, 165, 0), (255, 140, 0), (255, 120, 20)),
    "pink": ((250, 145, 195), (255, 192, 203), (255, 105, 180), (240, 120, 170)),
    "brown": ((139, 69, 19), (150, 75, 30), (120, 70, 40), (101, 67, 33)),
    "black": ((10, 10, 10), (0, 0, 0), (40, 40, 40)),
    "white": ((250, 250, 250), (255, 255, 255)),
    "grey": ((128, 128, 128), (150, 150, 150), (100, 100, 100), (169, 169, 169)),
    "cyan": ((0, 255, 255), (0, 200, 210), (60, 210, 230)),
}
PAPER: dict[str, tuple[Colour, ...]] = {
    "white": ((250, 250, 250), (255, 255, 255), (244, 243, 240)),
    "black": ((10, 10, 10), (0, 0, 0), (28, 28, 30)),
    "grey": ((128, 128, 128), (200, 200, 200), (90, 90, 90), (170, 170, 170)),
    "blue": ((173, 216, 230), (200, 222, 255), (20, 30, 90), (90, 140, 220)),
    "green": ((190, 235, 190), (144, 238, 144), (20, 70, 40), (90, 180, 110)),
    "yellow": ((255, 250, 190), (250, 235, 130), (255, 240, 100)),
    "pink": ((255, 215, 225), (255, 190, 210)),
    "purple": ((225, 205, 245), (60, 20, 90), (180, 150, 220)),
    "orange": ((255, 215, 170), (250, 180, 100)),
    "red": ((150, 20, 25), (205, 70, 65)),
}
COLOURS = tuple(INK)
BACKGROUNDS = tuple(PAPER)
COMMON_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink")
COLOUR_WEIGHTS = [10 if name in COMMON_COLOURS else 4 for name in COLOURS]
BACKGROUND_WEIGHTS = [40, 16, 20, 5, 5, 5, 4, 4, 3, 3]
LEAST_CONTRAST = 95.0  # distance in RGB between ink and paper


def random_colour(rng: random.Random, background: str = "") -> str:
    """A colour name other than the background's; the common ones come up more often."""
    while (name := rng.choices(COLOURS, COLOUR_WEIGHTS)[0]) == background:
        pass
    return name


def random_background(rng: random.Random) -> str:
    return rng.choices(BACKGROUNDS, BACKGROUND_WEIGHTS)[0]


def mixed(rng: random.Random, shades: tuple[Colour, ...], stray: int) -> Colour:
    """A value between two of the shades, each channel off by at most `stray`."""
    one, other, share = rng.choice(shades), rng.choice(shades), rng.random() ** 2
    red, green, blue = (
        round(a + (b - a) * share) + rng.randint(-stray, stray) for a, b in zip(one, other, strict=True)
    )
    return clipped(red), clipped(green), clipped(blue)


def paper(rng: random.Random, background: str) -> Colour:
    return mixed(rng, PAPER[background], 5)


def ink(rng: random.Random, colour: str, on: Colour) -> Colour:
    """A value of this colour that stands out from the paper it is drawn on."""
    best = mixed(rng, INK[colour], 9)
    for _ in range(12):
        if distance(best, on) >= LEAST_CONTRAST:
            return best
        best = max(best, mixed(rng, INK[colour], 9), key=lambda value: distance(value, on))
    return best


def distance(one: Colour, other: Colour) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5)


def clipped(value: int) -> int:
    return max(0, min(255, value))
