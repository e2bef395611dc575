"""A seed draws the same scene and picture every time, and the picture shows what the scene says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.exam import SECOND_SEED, drawn_image
from demo.pictures.colours import BACKGROUNDS, COLOURS, INK, distance
from demo.pictures.drawing import Mark, draw, draw_marked
from demo.pictures.films import EVENTS, draw_film, random_film, things_at
from demo.pictures.lettering import carried_fonts
from demo.pictures.scenes import (
    CELLS,
    MOST_DIGITS,
    MOST_PIXELS,
    MOST_THINGS,
    SHAPES,
    Scene,
    Thing,
    cell_of,
    random_scene,
)
from demo.pictures.second import FONTS, draw_second, second_scene

PROGRAMS: dict[str, tuple[Callable[[random.Random], Scene], Callable[[Scene], tuple[Image.Image, list[Mark]]]]] = {
    "own": (random_scene, draw_marked),
    "second": (second_scene, draw_second),
}


@pytest.mark.parametrize("first", [0, SECOND_SEED])
def test_a_seed_always_draws_the_same_pixels(first: int) -> None:
    for seed in range(first, first + 12):
        assert drawn_image(seed).tobytes() == drawn_image(seed).tobytes()


@pytest.mark.parametrize("first", [0, SECOND_SEED])
def test_different_seeds_draw_different_images(first: int) -> None:
    assert len({drawn_image(first + i).tobytes() for i in range(30)}) == 30


@pytest.mark.parametrize("program", PROGRAMS)
def test_scenes_stay_within_what_was_promised(program: str) -> None:
    scene_of, _ = PROGRAMS[program]
    rng = random.Random(5)
    for _ in range(400):
        scene = scene_of(rng)
        assert bool(scene.things) != bool(scene.number)
        assert len(scene.things) <= MOST_THINGS
        assert len(scene.number) <= MOST_DIGITS
        assert scene.background in BACKGROUNDS
        assert scene.background not in {thing.colour for thing in scene.things} | {scene.number_colour}
        cells = [thing.cell for thing in scene.things]
        assert cells == sorted(cells), "things stand in reading order"
        for thing in scene.things:
            assert thing.cell == cell_of(thing.x, thing.y)


def test_training_pictures_need_no_resize() -> None:
    rng = random.Random(6)
    for _ in range(300):
        scene = random_scene(rng)
        assert scene.width_px % 28 == 0 and scene.height_px % 28 == 0
        assert scene.width_px * scene.height_px <= MOST_PIXELS


@pytest.mark.parametrize("program", PROGRAMS)
def test_marks_hold_what_was_drawn(program: str) -> None:
    """Inside a mark much differs from the paper, and around the marks nothing but wear does."""
    scene_of, draw_of = PROGRAMS[program]
    rng = random.Random(7)
    checked = 0
    while checked < 25:
        scene = scene_of(rng)
        if not scene.things:
            continue
        image, marks = draw_of(scene)
        pixels = np.asarray(image.convert("RGB"), np.float64)
        outside = np.ones(pixels.shape[:2], bool)
        for mark in marks:
            (x, y), (a, b) = mark.centre, mark.radius
            outside[max(0, int(y - b - 3)) : int(y + b + 4), max(0, int(x - a - 3)) : int(x + a + 4)] = False
        paper = np.median(pixels[outside], axis=0)
        for mark in marks:
            (x, y), (a, b) = mark.centre, mark.radius
            inside = pixels[max(0, int(y - b)) : int(y + b) + 1, max(0, int(x - a)) : int(x + a) + 1]
            assert (np.abs(inside - paper).max(axis=2) > 35).mean() > 0.1, (scene, mark)
        assert (np.abs(pixels - paper).max(axis=2)[outside] > 120).mean() < 0.01, scene
        checked += 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", range(CELLS))
def test_a_thing_has_its_colour_in_its_cell_and_the_background_elsewhere(shape: str, cell: int) -> None:
    colour = COLOURS[cell % 7]
    scene = Scene(168, 112, "white", (Thing(shape, colour, cell),), "", "", drawing_seed=cell)
    image, marks = draw_marked(scene)
    x, y = marks[0].centre
    assert (int(x * 3 / 168), int(y * 3 / 112)) == (cell % 3, cell // 3)
    assert _nearest(image.getpixel((int(x), int(y)))) == colour
    assert _nearest(image.getpixel((int((cell % 3 + 1.5) % 3 * 56), int(y)))) == "white"


def test_every_digit_is_drawn_inside_the_image() -> None:
    for number in ("0", "12", "345", "6789"):
        image = draw(Scene(112, 84, "black", (), number, "yellow", drawing_seed=3))
        border = [image.getpixel((x, y)) for x in range(112) for y in (0, 83)]
        assert {_nearest(pixel) for pixel in border} == {"black"}


def test_the_second_program_writes_in_no_font_that_training_uses() -> None:
    assert not {Path(font).stem for font in carried_fonts()} & set(FONTS)


@pytest.mark.parametrize("event", EVENTS)
def test_a_film_shows_its_event(event: str) -> None:
    rng = random.Random(8)
    film = next(film for _ in range(500) if (film := random_film(rng, (112, 84), 3)).event == event)
    first, last = things_at(film, 0), things_at(film, film.frames - 1)
    images, marks = draw_film(film)
    assert len(images) == len(marks) == film.frames == 6
    assert images[0].tobytes() != images[-1].tobytes()
    match event:
        case "comes":
            assert len(last) == len(first) + 1
        case "goes":
            assert len(last) == len(first) - 1
        case "colour":
            assert [thing.colour for thing in first] != [thing.colour for thing in last]
            assert [thing.shape for thing in first] == [thing.shape for thing in last]
        case _:
            travelled = last[film.actor].x - first[film.actor].x, last[film.actor].y - first[film.actor].y
            axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[event]
            assert travelled[axis] * sign > 0.3
            assert travelled[1 - axis] == 0


def _nearest(pixel: object) -> str:
    """The name of the colour that a pixel is nearest to."""
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return min(INK, key=lambda name: min(distance((red, green, blue), shade) for shade in INK[name]))
