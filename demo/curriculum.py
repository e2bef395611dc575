"""Which lessons a batch holds: single pictures, pairs, films, talk and copying, drawn by lot."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image

from demo.batches import Encoder, Images, Packed, Row, images_of, pack
from demo.lessons.chats import Chat, Piece, Said, Shared, Turn, chat_pieces
from demo.lessons.copying import random_copy
from demo.lessons.pairs import random_pair_question
from demo.lessons.picture_chats import THINKING, picture_chat
from demo.lessons.questions import Question, random_greeting
from demo.lessons.tools import random_lesson
from demo.lessons.watching import random_film_question, times_of
from demo.pictures.drawing import Mark, draw_marked
from demo.pictures.films import draw_film, random_film
from demo.pictures.scenes import Scene, random_scene, random_size

FILM_SIZES_PX = ((112, 112), (112, 112), (140, 112), (112, 84), (140, 140), (84, 84))
# How often a batch is of a kind, how many rows it has, and how many tokens the chats of a row have room for.
SHARES = {"single": 23, "box": 16, "json": 14, "pair": 13, "film": 17, "talk": 16, "copy": 1}
ROWS = {"single": 14, "pair": 7, "film": 5, "talk": 6, "copy": 8}
ROOM = {"single": 150, "box": 220, "json": 280, "pair": 150, "film": 110, "greeting": 380, "copy": 250}


@dataclass(frozen=True)
class Desk:
    """What lessons are written with: the lots and the tokenizer that says how long a chat is."""

    rng: random.Random
    encoder: Encoder

    def filled(self, room: int, chat: Callable[[], Chat]) -> list[list[Piece]]:
        """Chats until the next one would not fit into so many tokens; at least one."""
        chats: list[list[Piece]] = []
        while True:
            pieces = chat_pieces(chat())
            room -= sum(len(self.encoder.encode(p.text if isinstance(p, Said) else str(p))[0]) for p in pieces)
            if chats and room < 0:
                return chats
            chats.append(pieces)


def random_batch(rng: random.Random, encoder: Encoder, kind: str = "") -> tuple[Packed, Images | None]:
    """One batch of one kind of lesson."""
    kind = kind or rng.choices(list(SHARES), list(SHARES.values()))[0]
    rows, images = MAKERS[kind](Desk(rng, encoder))
    return pack(encoder, rows, images.grid if images else None), images


def crowded_images(rng: random.Random, n: int) -> Images:
    """Pictures that hold more than is ever asked about, for the eyes alone."""
    size = random_size(rng)
    return _drawn([random_scene(rng, size, crowded=rng.random() < 0.6) for _ in range(n)])[0]


def film_images(rng: random.Random, encoder: Encoder) -> Images:
    """Pieces of videos, for the eyes alone."""
    return _films(Desk(rng, encoder))[1]


def _drawn(scenes: list[Scene]) -> tuple[Images, list[list[Mark]]]:
    pictures: list[list[Image.Image]] = []
    marks: list[list[Mark]] = []
    for scene in scenes:
        image, found = draw_marked(scene)
        pictures.append([image])
        marks.append(found)
    return images_of(pictures, scenes, marks), marks


def _singles(desk: Desk, kind: str = "single") -> tuple[list[Row], Images]:
    """Chats about single pictures; those of a kind that is hard to learn also come by themselves."""
    rng = desk.rng
    size = random_size(rng)
    scenes = [random_scene(rng, size, shows="things" if kind == "box" else "") for _ in range(ROWS["single"])]
    images, marks = _drawn(scenes)
    rows = []
    for i, scene in enumerate(scenes):
        chats = desk.filled(ROOM[kind], partial(picture_chat, rng, scene, marks[i], kind if kind != "single" else ""))
        rows.append(Row(Shared(pictures=1).pieces(), chats, [i]))
    return rows, images


def _pairs(desk: Desk) -> tuple[list[Row], Images]:
    rng = desk.rng
    size = random_size(rng)
    while size[0] * size[1] > 150 * 150:
        size = random_size(rng)
    scenes: list[Scene] = []
    for _ in range(ROWS["pair"]):
        shows = "number" if rng.random() < 0.25 else "things"
        scenes += [random_scene(rng, size, shows=shows if rng.random() < 0.9 else "") for _ in range(2)]
    images, _ = _drawn(scenes)
    rows = []
    for i in range(ROWS["pair"]):
        chats = desk.filled(
            ROOM["pair"], partial(_one_turn, rng, partial(random_pair_question, rng, scenes[2 * i : 2 * i + 2]))
        )
        rows.append(Row(Shared(pictures=2).pieces(), chats, [2 * i, 2 * i + 1]))
    return rows, images


def _one_turn(rng: random.Random, ask: Callable[[], Question]) -> Chat:
    return Chat((Turn(ask()),), rng.random() < THINKING, rng.random() < 0.2)


def _films(desk: Desk) -> tuple[list[Row], Images]:
    rng = desk.rng
    size, pairs = rng.choice(FILM_SIZES_PX), rng.randint(2, 6)
    frames: list[list[Image.Image]] = []
    scenes: list[Scene] = []
    marks: list[list[Mark]] = []
    rows = []
    for i in range(ROWS["film"]):
        film = random_film(rng, size, pairs)
        images, found = draw_film(film)
        for pair in range(pairs):
            frames.append(images[2 * pair : 2 * pair + 2])
            scenes.append(film.scene)
            marks.append(found[2 * pair])
        times = times_of(rng, pairs)
        chats = desk.filled(ROOM["film"], partial(_one_turn, rng, partial(random_film_question, rng, film, times)))
        rows.append(Row(Shared(pictures=pairs, times=times).pieces(), chats, range(i * pairs, (i + 1) * pairs)))
    return rows, images_of(frames, scenes, marks)


def _talk(desk: Desk) -> tuple[list[Row], None]:
    """Small talk, and tools."""
    rng, rows = desk.rng, []
    for i in range(ROWS["talk"]):
        if i % 6 == 0:
            rows.append(
                Row(
                    Shared().pieces(),
                    desk.filled(ROOM["greeting"], partial(_one_turn, rng, partial(random_greeting, rng))),
                )
            )
        else:
            shared, chats = random_lesson(rng, 6)
            rows.append(Row(shared.pieces(), [chat_pieces(chat) for chat in chats]))
    return rows, None


def _copies(desk: Desk) -> tuple[list[Row], None]:
    ask = partial(_one_turn, desk.rng, partial(random_copy, desk.rng))
    return [Row(Shared().pieces(), desk.filled(ROOM["copy"], ask)) for _ in range(ROWS["copy"])], None


MAKERS: dict[str, Callable[[Desk], tuple[list[Row], Images | None]]] = {
    "single": _singles,
    "box": partial(_singles, kind="box"),
    "json": partial(_singles, kind="json"),
    "pair": _pairs,
    "film": _films,
    "talk": _talk,
    "copy": _copies,
}
