"""What can be asked about a scene, in English and Chinese, with the one answer that counts as right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from demo.phrases import Patterns, as_typed, phrasing
from demo.scenes import CELLS, COLOURS, SHAPES, Scene, Thing
from demo.wordings import AXES, LANGUAGES, WORDINGS, Wording

ABSENT = 0.1  # so often a colour or a place is asked of what is not there
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
    "describe": 16,
    "unknown": 5,
}
NUMBER_KINDS = {"number": 52, "colour": 10, "exists": 8, "background": 8, "describe": 22, "unknown": 5}
KINDS = (*THING_KINDS, "number", "greeting")


@dataclass(frozen=True)
class Question:
    """One question with its answer, and the short reasoning that a thinking model writes first."""

    kind: str
    language: str
    text: str
    answer: str
    reasoning: str


@dataclass(frozen=True)
class View:
    """A picture that is asked about, in one language; `held_out` puts questions as training never does."""

    rng: random.Random
    scene: Scene
    words: Wording
    held_out: bool = False

    def say(self, patterns: Patterns, *names: str) -> str:
        """A phrasing with its names, as people type it."""
        text = phrasing(self.rng, patterns, self.held_out).format(*names)
        return as_typed(self.rng, self.words.language, text[:1].upper() + text[1:])


def random_question(
    rng: random.Random, scene: Scene, kind: str | None = None, held_out: bool = False
) -> Question | None:
    """A question of this kind (or of a kind drawn by lot); None when the scene does not allow the kind."""
    kinds = THING_KINDS if scene.things else NUMBER_KINDS
    if kind is None:
        kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]
    if kind not in kinds:
        return None
    return ASKERS[kind](View(rng, scene, WORDINGS[rng.choice(LANGUAGES)], held_out))


def random_questions(rng: random.Random, scene: Scene, n: int) -> list[Question]:
    """n questions about one scene; now and then a greeting takes the place of one."""
    questions: list[Question] = []
    while len(questions) < n:
        question = random_greeting(rng, with_picture=True) if rng.random() < 0.02 else random_question(rng, scene)
        if question is not None:
            questions.append(question)
    return questions


def random_greeting(rng: random.Random, held_out: bool = False, with_picture: bool = False) -> Question:
    """Small talk and whatever else is said without a picture, or what may be said beside one."""
    words = WORDINGS[rng.choice(LANGUAGES)]
    greetings = words.ways.GREETINGS[:-1] if with_picture else words.ways.GREETINGS  # the last miss a picture
    patterns, answer, reasoning = rng.choice(greetings)
    return Question(
        "greeting", words.language, as_typed(rng, words.language, phrasing(rng, patterns, held_out)), answer, reasoning
    )


def ask_colour(view: View) -> Question | None:
    words, scene = view.words, view.scene
    if scene.number:
        colour = words.colours[scene.number_colour]
        text = view.say(words.ways.COLOUR, "number" if words.language == "en" else "数字")
        return _question("colour", words, text, words.colour_answer.format(colour), words.number_is.format(colour))
    absent = _absent(view) if view.rng.random() < ABSENT else ""
    if absent:
        text = view.say(words.ways.COLOUR, words.shapes[absent])
        return _question("colour", words, text, words.no_such.format(words.shapes[absent]), words.look)
    thing = _only_one(view, lambda a, b: a.shape == b.shape)
    if thing is None:
        return None
    text = view.say(words.ways.COLOUR, words.shapes[thing.shape])
    answer = words.colour_answer.format(words.colours[thing.colour])
    return _question("colour", words, text, answer, words.placed(thing))


def ask_shape(view: View) -> Question | None:
    words = view.words
    thing = _only_one(view, lambda a, b: a.colour == b.colour)
    if thing is None:
        return None
    text = view.say(words.ways.SHAPE, words.colours[thing.colour])
    return _question("shape", words, text, words.shape_answer(thing.shape), words.placed(thing))


def ask_count(view: View) -> Question:
    rng, words, things = view.rng, view.words, view.scene.things
    what = rng.choice(("things", "shape", "colour"))
    if what == "things":
        text, counted = view.say(words.ways.COUNT), things
    elif what == "shape":
        shape = _present_or_any(rng, [thing.shape for thing in things], SHAPES)
        text = view.say(words.ways.COUNT_SOME, words.plurals[shape])
        counted = tuple(thing for thing in things if thing.shape == shape)
    else:
        colour = _present_or_any(rng, [thing.colour for thing in things], COLOURS)
        noun = rng.choice((" things", " objects", " shapes") if words.language == "en" else ("物体", "东西", "图形"))
        text = view.say(words.ways.COUNT_SOME, words.colours[colour] + noun)
        counted = tuple(thing for thing in things if thing.colour == colour)
    answer = words.sentences(words.begin_upper(words.cells_of(counted)), BOX.format(len(counted)))
    return _question("count", words, text, answer, words.look)


def ask_exists(view: View) -> Question:
    rng, scene, words = view.rng, view.scene, view.words
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
    text = view.say(words.ways.EXISTS, name)
    return _question("exists", words, text, words.there if found else words.not_there, words.listed(tuple(found)))


def ask_where(view: View) -> Question | None:
    words = view.words
    absent = _absent(view) if view.rng.random() < ABSENT else ""
    if absent:
        text = view.say(words.ways.WHERE, words.the_shape(absent))
        return _question("where", words, text, words.no_such.format(words.shapes[absent]), words.look)
    if view.rng.random() < 0.4:
        thing = _only_one(view, lambda a, b: a.shape == b.shape)
        name = words.the_shape(thing.shape) if thing else ""
    else:
        thing = _only_one(view, _same_looks)
        name = words.the_thing(thing) if thing else ""
    if thing is None:
        return None
    return _question(
        "where", words, view.say(words.ways.WHERE, name), words.where_answer(thing.cell), words.placed(thing)
    )


def ask_at(view: View) -> Question:
    rng, scene, words = view.rng, view.scene, view.words
    cell = rng.choice(scene.things).cell if rng.random() < 0.75 else rng.randrange(CELLS)
    thing = scene.thing_at(cell)
    text = view.say(words.ways.AT, words.at_cell(rng, cell))
    return _question("at", words, text, words.at_answer(thing), words.listed((thing,) if thing else ()))


def ask_relation(view: View) -> Question | None:
    """Left or right, above or below: asked only where one of the two holds."""
    scene, words = view.scene, view.words
    unique = [thing for thing in scene.things if _count_like(scene, thing, _same_looks) == 1]
    pairs = [(one, other) for one in unique for other in unique if one is not other]
    choices = [(axis, one, other) for axis in AXES for one, other in pairs if relation(axis, one, other)]
    if not choices:
        return None
    axis, one, other = view.rng.choice(choices)
    text = view.say(words.ways.RELATION[axis], words.the_thing(one), words.the_thing(other))
    places = words.joined([words.placed(one, full=False), words.placed(other, full=False)])
    verdict = words.begin_upper(words.relations[relation(axis, one, other)]) + words.stop
    return _question("relation", words, text, words.sentences(words.begin_upper(places), verdict), words.look)


def ask_background(view: View) -> Question:
    words = view.words
    background = words.backgrounds[view.scene.background]
    text = view.say(words.ways.BACKGROUND)
    return _question("background", words, text, words.colour_answer.format(background), words.look)


def ask_number(view: View) -> Question:
    words = view.words
    return _question("number", words, view.say(words.ways.NUMBER), BOX.format(view.scene.number), words.look)


def ask_describe(view: View) -> Question:
    scene, words = view.scene, view.words
    text = view.say(words.ways.DESCRIBE)
    if scene.number:
        colour = words.colours[scene.number_colour]
        return _question("describe", words, text, words.number_scene.format(scene.number, colour), words.look)
    return _question("describe", words, text, words.listed(scene.things), words.look)


def ask_unknown(view: View) -> Question:
    """What no picture of shapes and numbers tells."""
    words = view.words
    return _question("unknown", words, view.say(words.ways.UNKNOWN), words.cannot_tell, words.look)


def relation(axis: str, one: Thing, other: Thing) -> str:
    """How `one` lies to `other` along an axis: left, right, above or below; empty when they are level."""
    before, after = AXES[axis]
    difference = one.column - other.column if axis == "column" else one.row - other.row
    return "" if difference == 0 else before if difference < 0 else after


ASKERS: dict[str, Callable[[View], Question | None]] = {
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
    "unknown": ask_unknown,
}


def _question(kind: str, words: Wording, text: str, answer: str, reasoning: str) -> Question:
    return Question(kind, words.language, text, words.begin_upper(answer), words.begin_upper(reasoning))


def _same_looks(one: Thing, other: Thing) -> bool:
    return one.shape == other.shape and one.colour == other.colour


def _count_like(scene: Scene, thing: Thing, alike: Callable[[Thing, Thing], bool]) -> int:
    return sum(alike(thing, other) for other in scene.things)


def _only_one(view: View, alike: Callable[[Thing, Thing], bool]) -> Thing | None:
    unique = [thing for thing in view.scene.things if _count_like(view.scene, thing, alike) == 1]
    return view.rng.choice(unique) if unique else None


def _absent(view: View) -> str:
    """A shape that is not in the picture; empty when all are."""
    absent = [shape for shape in SHAPES if all(thing.shape != shape for thing in view.scene.things)]
    return view.rng.choice(absent) if absent else ""


def _present_or_any(rng: random.Random, present: list[str], every: tuple[str, ...]) -> str:
    return rng.choice(present) if rng.random() < 0.7 else rng.choice(every)
