"""A film: one thing moves, changes its colour, comes or goes, while others stand still."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image

from demo.pictures.colours import COMMON_COLOURS, Colour, ink, paper
from demo.pictures.drawing import Mark, Pen, put, random_pen
from demo.pictures.scenes import Scene, Thing, cell_of, random_scene
from demo.pictures.wear import worn

EVENTS = ("left", "right", "up", "down", "colour", "comes", "goes")
NEW_COLOURS = (*COMMON_COLOURS, "black")
FRAMES_A_PAIR = 2  # two frames share the picture tokens


@dataclass(frozen=True)
class Film:
    """What happens: to which thing, from which frame on."""

    scene: Scene  # with every thing that is ever seen
    event: str
    actor: int  # index into the scene's things
    frames: int
    change: int  # the first frame after the change; 0 for a movement
    new_colour: str
    travel: tuple[float, float, float, float]  # where a moving thing starts and ends: x, y, x, y

    @property
    def thing(self) -> Thing:
        return self.scene.things[self.actor]


def random_film(rng: random.Random, size_px: tuple[int, int], pairs: int) -> Film:
    while True:
        scene = random_scene(rng, size_px, shows="things")
        if len(scene.things) <= 3 and len({(thing.shape, thing.colour) for thing in scene.things}) == len(scene.things):
            break
    event, actor, frames = rng.choice(EVENTS), rng.randrange(len(scene.things)), FRAMES_A_PAIR * pairs
    change = 0 if event in EVENTS[:4] else FRAMES_A_PAIR * rng.randint(1, pairs - 1)
    thing = scene.things[actor]
    while (new_colour := rng.choice(NEW_COLOURS)) in (thing.colour, scene.background):
        pass
    travel = (thing.x, thing.y, thing.x, thing.y)
    if event in EVENTS[:4]:
        if rng.random() < 0.6:  # alone
            scene = replace(scene, things=(thing,))
            actor = 0
        lane, near, far = rng.uniform(0.25, 0.75), rng.uniform(0.14, 0.32), rng.uniform(0.66, 0.86)
        start, end = (far, near) if event in ("left", "up") else (near, far)
        travel = (start, lane, end, lane) if event in ("left", "right") else (lane, start, lane, end)
        small = replace(thing, radius=min(thing.radius, 0.16))
        scene = replace(scene, things=tuple(small if i == actor else t for i, t in enumerate(scene.things)))
    return Film(scene, event, actor, frames, change, new_colour, travel)


def things_at(film: Film, frame: int) -> tuple[Thing, ...]:
    """What is seen in a frame."""
    seen = []
    for i, thing in enumerate(film.scene.things):
        if i != film.actor:
            seen.append(thing)
            continue
        after = frame >= film.change
        if film.event == "colour" and after:
            thing = replace(thing, colour=film.new_colour)
        elif (film.event == "comes" and not after) or (film.event == "goes" and after):
            continue
        elif film.change == 0:
            part = frame / (film.frames - 1)
            x = film.travel[0] + (film.travel[2] - film.travel[0]) * part
            y = film.travel[1] + (film.travel[3] - film.travel[1]) * part
            thing = replace(thing, x=x, y=y, cell=cell_of(x, y))
        seen.append(thing)
    return tuple(seen)


def draw_film(film: Film) -> tuple[list[Image.Image], list[list[Mark]]]:
    """Each frame, and the marks in it; the same pen, paper and inks throughout."""
    rng = random.Random(film.scene.drawing_seed)
    background = paper(rng, film.scene.background)
    pen = Pen(smooth=2) if film.scene.plain else replace(random_pen(rng, background), smooth=2)
    inks = {thing.colour: ink(rng, thing.colour, background) for thing in film.scene.things}
    inks[film.new_colour] = ink(rng, film.new_colour, background)
    wear = rng.getrandbits(32)
    images, marks = [], []
    for frame in range(film.frames):
        things = things_at(film, frame)
        image = Image.new("RGB", (film.scene.width_px, film.scene.height_px), background)
        scene = replace(film.scene, things=things)
        colours: list[Colour] = [inks[thing.colour] for thing in things]
        found, _ = put(random.Random(film.scene.drawing_seed), scene, image, background, pen, colours)
        images.append(image if film.scene.plain else worn(random.Random(wear), image))
        marks.append(found)
    return images, marks
