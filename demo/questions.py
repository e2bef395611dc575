"""What can be asked about a scene, in English and Chinese, with the one answer that counts as right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from demo.scenes import CELLS, COLOURS, SHAPES, Scene, Thing
from demo.wordings import AXES, GREETINGS, LANGUAGES, WORDINGS, Wording

BOX = "<|begin_of_box|>{}<|end_of_box|>"
# How often a kind is asked in training; relations are the hardest and need the most practice.
THING_KINDS = {
    "colour": 7,
    "shape": 7,
    "count": 16,
    "exists": 13,
    "where": 9,
    "at": 10,
    "relation": 26,
    "background": 2,
    "describe": 10,
}
NUMBER_KINDS = {"number": 52, "colour": 10, "exists": 8, "background": 8, "describe": 22}
KINDS = (*THING_KINDS, "number", "greeting")


@dataclass(frozen=True)
class Question:
    """One question with its answer, and the short reasoning that a thinking model writes first."""

    kind: str
    language: str
    text: str
    answer: str
    reasoning: str


def random_question(rng: random.Random, scene: Scene, kind: str | None = None) -> Question | None:
    """A question of this kind (or of a kind drawn by lot); None when the scene does not allow the kind."""
    kinds = THING_KINDS if scene.things else NUMBER_KINDS
    if kind is None:
        kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]
    if kind not in kinds:
        return None
    language = rng.choice(LANGUAGES)
    return ASKERS[kind](rng, scene, WORDINGS[language])


def random_questions(rng: random.Random, scene: Scene, n: int) -> list[Question]:
    """n questions about one scene; now and then a greeting takes the place of one."""
    questions: list[Question] = []
    while len(questions) < n:
        question = random_greeting(rng) if rng.random() < 0.01 else random_question(rng, scene)
        if question is not None:
            questions.append(question)
    return questions


def random_greeting(rng: random.Random) -> Question:
    language = rng.choice(LANGUAGES)
    text, answer, reasoning = rng.choice(GREETINGS[language])
    return Question("greeting", language, text, answer, reasoning)


def ask_colour(rng: random.Random, scene: Scene, words: Wording) -> Question | None:
    if scene.number:
        colour = words.colours[scene.number_colour]
        text = rng.choice(words.number_colour_questions)
        return _question("colour", words, text, words.colour_answer.format(colour), words.number_is.format(colour))
    thing = _only_one(rng, scene, lambda a, b: a.shape == b.shape)
    if thing is None:
        return None
    text = rng.choice(words.colour_questions).format(words.shapes[thing.shape])
    answer = words.colour_answer.format(words.colours[thing.colour])
    return _question("colour", words, text, answer, words.placed(thing))


def ask_shape(rng: random.Random, scene: Scene, words: Wording) -> Question | None:
    thing = _only_one(rng, scene, lambda a, b: a.colour == b.colour)
    if thing is None:
        return None
    text = rng.choice(words.shape_questions).format(words.colours[thing.colour])
    return _question("shape", words, text, words.shape_answer(thing.shape), words.placed(thing))


def ask_count(rng: random.Random, scene: Scene, words: Wording) -> Question:
    what = rng.choice(("things", "shape", "colour"))
    if what == "things":
        text, counted = rng.choice(words.count_questions), scene.things
    elif what == "shape":
        shape = _present_or_any(rng, [thing.shape for thing in scene.things], SHAPES)
        text = rng.choice(words.count_shape_questions).format(words.plurals[shape])
        counted = tuple(thing for thing in scene.things if thing.shape == shape)
    else:
        colour = _present_or_any(rng, [thing.colour for thing in scene.things], COLOURS)
        text = rng.choice(words.count_colour_questions).format(words.colours[colour])
        counted = tuple(thing for thing in scene.things if thing.colour == colour)
    answer = words.sentences(words.begin_upper(words.cells_of(counted)), BOX.format(len(counted)))
    return _question("count", words, text, answer, words.look)


def ask_exists(rng: random.Random, scene: Scene, words: Wording) -> Question:
    what = Thing(rng.choice(SHAPES), rng.choice(COLOURS), 0)
    if scene.things and rng.random() < 0.65:
        seen = rng.choice(scene.things)
        # Often a near miss (the right shape or the right colour only), for which a glance is not enough.
        what = rng.choice((seen, seen, replace(what, shape=seen.shape), replace(what, colour=seen.colour)))
    if rng.random() < 0.25:
        found = [thing for thing in scene.things if thing.shape == what.shape]
        name = words.any_shape(what.shape)
    else:
        found = [thing for thing in scene.things if (thing.shape, thing.colour) == (what.shape, what.colour)]
        name = words.a_thing(what)
    text = rng.choice(words.exists_questions).format(name)
    return _question("exists", words, text, words.there if found else words.not_there, words.listed(tuple(found)))


def ask_where(rng: random.Random, scene: Scene, words: Wording) -> Question | None:
    if rng.random() < 0.4:
        thing = _only_one(rng, scene, lambda a, b: a.shape == b.shape)
        name = words.the_shape(thing.shape) if thing else ""
    else:
        thing = _only_one(rng, scene, _same_looks)
        name = words.the_thing(thing) if thing else ""
    if thing is None:
        return None
    text = rng.choice(words.where_questions).format(name)
    return _question("where", words, text, words.where_answer(thing.cell), words.placed(thing))


def ask_at(rng: random.Random, scene: Scene, words: Wording) -> Question:
    cell = rng.choice(scene.things).cell if rng.random() < 0.75 else rng.randrange(CELLS)
    thing = scene.thing_at(cell)
    text = rng.choice(words.at_questions).format(words.at_cell(cell))
    return _question("at", words, text, words.at_answer(thing), words.listed((thing,) if thing else ()))


def ask_relation(rng: random.Random, scene: Scene, words: Wording) -> Question | None:
    """Left or right, above or below: asked only where one of the two holds."""
    unique = [thing for thing in scene.things if _count_like(scene, thing, _same_looks) == 1]
    pairs = [(one, other) for one in unique for other in unique if one is not other]
    choices = [(axis, one, other) for axis in AXES for one, other in pairs if relation(axis, one, other)]
    if not choices:
        return None
    axis, one, other = rng.choice(choices)
    text = rng.choice(words.relation_questions[axis]).format(words.the_thing(one), words.the_thing(other))
    places = words.joined([words.placed(one, full=False), words.placed(other, full=False)])
    verdict = words.begin_upper(words.relations[relation(axis, one, other)]) + words.stop
    return _question("relation", words, text, words.sentences(words.begin_upper(places), verdict), words.look)


def ask_background(rng: random.Random, scene: Scene, words: Wording) -> Question:
    background = words.backgrounds[scene.background]
    text = rng.choice(words.background_questions)
    return _question("background", words, text, words.colour_answer.format(background), words.look)


def ask_number(rng: random.Random, scene: Scene, words: Wording) -> Question:
    text = rng.choice(words.number_questions)
    return _question("number", words, text, BOX.format(scene.number), words.look)


def ask_describe(rng: random.Random, scene: Scene, words: Wording) -> Question:
    text = rng.choice(words.describe_questions)
    if scene.number:
        colour = words.colours[scene.number_colour]
        return _question("describe", words, text, words.number_scene.format(scene.number, colour), words.look)
    return _question("describe", words, text, words.listed(scene.things), words.look)


def relation(axis: str, one: Thing, other: Thing) -> str:
    """How `one` lies to `other` along an axis: left, right, above or below; empty when they are level."""
    before, after = AXES[axis]
    difference = one.column - other.column if axis == "column" else one.row - other.row
    return "" if difference == 0 else before if difference < 0 else after


ASKERS: dict[str, Callable[[random.Random, Scene, Wording], Question | None]] = {
    "colour": ask_colour,
    "shape": ask_shape,
    "count": ask_count,
    "exists": ask_exists,
    "where": ask_where,
    "at": ask_at,
    "relation": ask_relation,
    "background": ask_background,
    "number": ask_number,
    "describe": ask_describe,
}


def _question(kind: str, words: Wording, text: str, answer: str, reasoning: str) -> Question:
    return Question(kind, words.language, text, words.begin_upper(answer), words.begin_upper(reasoning))


def _same_looks(one: Thing, other: Thing) -> bool:
    return one.shape == other.shape and one.colour == other.colour


def _count_like(scene: Scene, thing: Thing, alike: Callable[[Thing, Thing], bool]) -> int:
    return sum(alike(thing, other) for other in scene.things)


def _only_one(rng: random.Random, scene: Scene, alike: Callable[[Thing, Thing], bool]) -> Thing | None:
    unique = [thing for thing in scene.things if _count_like(scene, thing, alike) == 1]
    return rng.choice(unique) if unique else None


def _present_or_any(rng: random.Random, present: list[str], every: tuple[str, ...]) -> str:
    return rng.choice(present) if rng.random() < 0.7 else rng.choice(every)
