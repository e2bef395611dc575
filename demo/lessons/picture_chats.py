"""Chats about one picture: a question, an object of fields, or three turns."""

from __future__ import annotations

import random

from demo.lessons.chats import Chat, Turn
from demo.lessons.questions import THING_KINDS, Question, View, random_greeting, random_question
from demo.lessons.structured import ask_json
from demo.lessons.wordings import LANGUAGES, WORDINGS
from demo.pictures.drawing import Mark
from demo.pictures.scenes import Scene

THINKING = 0.2  # of the chats
TURNS = 0.2  # of the chats about a picture have three turns
JSON_PART = 0.12


def picture_chat(rng: random.Random, scene: Scene, marks: list[Mark], kind: str = "") -> Chat:
    """One question about a picture, or three in turn; of this kind where the scene allows it."""
    asked = random_question(rng, scene, marks, kind) if kind in THING_KINDS else None
    if asked is not None:
        turns = [asked]
    elif kind == "json" or (not kind and rng.random() < JSON_PART):
        turns = [ask_json(View(rng, scene, marks, WORDINGS[rng.choice(LANGUAGES)]))]
    elif rng.random() < TURNS:
        turns = three_turns(rng, scene, marks)
    else:
        turns = [one_question(rng, scene, marks)]
    return Chat(tuple(Turn(asked) for asked in turns), rng.random() < THINKING, rng.random() < 0.2)


def one_question(rng: random.Random, scene: Scene, marks: list[Mark], held_out: bool = False) -> Question:
    if rng.random() < 0.015:
        return random_greeting(rng, held_out)
    while (asked := random_question(rng, scene, marks, held_out=held_out)) is None:
        pass
    return asked


def three_turns(rng: random.Random, scene: Scene, marks: list[Mark], held_out: bool = False) -> list[Question]:
    """Three questions; after one that names a thing, the next may call it "it"."""
    asked: list[Question] = []
    while len(asked) < 3:
        view = View(rng, scene, marks, WORDINGS[asked[-1].language if asked else rng.choice(LANGUAGES)], held_out)
        follow_up = _follow_up(view) if scene.things and len(asked) < 2 and rng.random() < 0.4 else []
        asked += follow_up or [one_question(rng, scene, marks, held_out)]
    return asked[:3]


def _follow_up(view: View) -> list[Question]:
    """Whether a shape is there, and what "it" is like."""
    shapes = [thing.shape for thing in view.scene.things]
    unique = [thing for thing in view.scene.things if shapes.count(thing.shape) == 1]
    if not unique:
        return []
    thing, words = view.rng.choice(unique), view.words
    first = Question(
        "exists",
        words.language,
        view.say(words.ways.EXISTS, words.any_shape(thing.shape)),
        words.there,
        words.placed(thing),
    )
    about = view.rng.choice(("colour", "where"))
    answer = (
        words.colour_answer.format(words.colours[thing.colour]) if about == "colour" else words.where_answer(thing.cell)
    )
    second = Question(
        "turns",
        words.language,
        view.say(words.ways.SECOND_TURN[about]),
        words.begin_upper(answer),
        words.begin_upper(words.placed(thing)),
    )
    return [first, second]
