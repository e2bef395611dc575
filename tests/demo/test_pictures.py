"""A seed draws the same scene and picture every time, and the picture shows what the scene says."""

from __future__ import annotations

import random

import pytest

from demo.drawing import INK, PAPER, TINT, draw, draw_marked
from demo.golden_set import drawn_image
from demo.scenes import CELLS, COLOURS, LARGEST_SIDE_PX, MOST_DIGITS, MOST_THINGS, SHAPES, Scene, Thing, random_scene


def test_a_seed_always_draws_the_same_pixels() -> None:
    for seed in range(20):
        assert drawn_image(seed).tobytes() == drawn_image(seed).tobytes()


def test_different_seeds_draw_different_images() -> None:
    assert len({drawn_image(seed).tobytes() for seed in range(50)}) == 50


def test_scenes_stay_within_what_was_promised() -> None:
    rng = random.Random(5)
    for _ in range(500):
        scene = random_scene(rng)
        assert 84 <= min(scene.width_px, scene.height_px) <= max(scene.width_px, scene.height_px) <= LARGEST_SIDE_PX
        assert bool(scene.things) != bool(scene.number)
        assert len(scene.things) <= MOST_THINGS
        assert len(scene.number) <= MOST_DIGITS
        cells = [thing.cell for thing in scene.things]
        assert cells == sorted(set(cells)), "things stand in reading order, one to a cell"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", range(CELLS))
def test_a_thing_has_its_colour_in_its_cell_and_the_background_elsewhere(shape: str, cell: int) -> None:
    colour = COLOURS[cell % len(COLOURS)]
    scene = Scene(168, 112, "white", (Thing(shape, colour, cell),), "", "", drawing_seed=cell)
    image, marks = draw_marked(scene)
    x, y = marks[0].centre
    assert (int(x * 3 / 168), int(y * 3 / 112)) == (cell % 3, cell // 3)
    assert _near(image.getpixel((int(x), int(y))), INK[colour])
    far = ((cell % 3 + 1.5) % 3 * 56, y)
    assert _near(image.getpixel((int(far[0]), int(far[1]))), PAPER["white"])


def test_every_digit_is_drawn_inside_the_image() -> None:
    for number in ("0", "12", "345", "6789"):
        image = draw(Scene(112, 84, "black", (), number, "yellow", drawing_seed=3))
        border = [image.getpixel((x, y)) for x in range(112) for y in (0, 83)]
        assert all(_near(pixel, PAPER["black"]) for pixel in border)


def _near(pixel: object, colour: tuple[int, int, int]) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= TINT for a, b in zip(pixel, colour, strict=True))
