"""What can be asked about a picture, in English and Chinese, with the one answer that counts as right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from demo.lessons.phrases import Patterns, as_typed, phrasing
from demo.lessons.wordings import AXES, LANGUAGES, WORDINGS, Wording
from demo.pictures.colours import COLOURS
from demo.pictures.drawing import Mark
from demo.pictures.scenes import CELLS, SHAPES, Scene, Thing

BOX = "<|begin_of_box|>{}<|end_of_box|>"
BOX_STEP = 10  # the demo's boxes are read to a hundredth of the picture, in GLM's thousandths
# How often a kind is asked in training.
THING_KINDS = {
    "colour": 7,
    "shape": 7,
    "count": 16,
    "exists": 11,
    "where": 9,
    "at": 10,
    "relation": 17,
    "background": 3,
    "describe": 16,
    "box": 13,
    "unknown": 8,
}
NUMBER_KINDS = {"number": 52, "colour": 8, "exists": 6, "background": 6, "describe": 22, "unknown": 7}
KINDS = (*THING_KINDS, "number", "greeting")


@dataclass(frozen=True)
class Question:
    """One question with its answer, and the short reasoning that a thinking model writes first."""

    kind: str
    language: str
    text: str
    answer: str
    reasoning: str
    unweighed: tuple[tuple[int, int], ...] = ()  # spans of the answer that nobody could foresee


@dataclass(frozen=True)
class View:
    """A picture that is asked about, in one language; `held_out` puts questions as training never does."""

    rng: random.Random
    scene: Scene
    marks: Sequence[Mark]  # of the things in their order, or of the digits
    words: Wording
    held_out: bool = False

    def say(self, patterns: Patterns, *names: str) -> str:
        """A phrasing with its names, as people type it."""
        text = phrasing(self.rng, patterns, self.held_out).format(*names)
        return as_typed(self.rng, self.words.language, text[:1].upper() + text[1:])


def random_question(
    rng: random.Random, scene: Scene, marks: Sequence[Mark], kind: str | None = None, held_out: bool = False
) -> Question | None:
    """A question of this kind (or of a kind drawn by lot); None when the scene does not allow the kind."""
    kinds = THING_KINDS if scene.things else NUMBER_KINDS
    if kind is None:
        kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]
    if kind not in kinds:
        return None
    return ASKERS[kind](View(rng, scene, marks, WORDINGS[rng.choice(LANGUAGES)], held_out))


def random_greeting(rng: random.Random, held_out: bool = False) -> Question:
    """Small talk and whatever else is said without a picture."""
    words = WORDINGS[rng.choice(LANGUAGES)]
    patterns, answer, reasoning = rng.choice(words.ways.GREETINGS)
    text = as_typed(rng, words.language, phrasing(rng, patterns, held_out))
    return Question("greeting", words.language, text, answer, reasoning)


def ask_colour(view: View) -> Question | None:
    words, scene = view.words, view.scene
    if scene.number:
        colour = words.colours[scene.number_colour]
        text = view.say(words.ways.COLOUR, "number" if words.language == "en" else "数字")
        return question("colour", words, text, words.colour_answer.format(colour), words.number_is.format(colour))
    if view.rng.random() < 0.12:
        shape = _absent(view)
        if shape:
            text = view.say(words.ways.COLOUR, words.shapes[shape])
            return question("colour", words, text, words.no_such.format(words.shapes[shape]), words.look)
    thing = _only_one(view, lambda a, b: a.shape == b.shape)
    if thing is None:
        return None
    text = view.say(words.ways.COLOUR, words.shapes[thing.shape])
    return question("colour", words, text, words.colour_answer.format(words.colours[thing.colour]), words.placed(thing))


def ask_shape(view: View) -> Question | None:
    words = view.words
    thing = _only_one(view, lambda a, b: a.colour == b.colour)
    if thing is None:
        return None
    text = view.say(words.ways.SHAPE, words.colours[thing.colour])
    return question("shape", words, text, words.shape_answer(thing.shape), words.placed(thing))


def ask_count(view: View) -> Question:
    words, things, rng = view.words, view.scene.things, view.rng
    what = rng.choice(("things", "things", "shape", "colour"))
    if what == "things":
        text, counted = view.say(words.ways.COUNT), things
    elif what == "shape":
        shape = _present_or_any(rng, [thing.shape for thing in things], SHAPES)
        text = view.say(words.ways.COUNT_SOME, words.plurals[shape])
        counted = tuple(thing for thing in things if thing.shape == shape)
    else:
        colour = _present_or_any(rng, [thing.colour for thing in things], COLOURS)
        noun = rng.choice(("things", "objects", "shapes") if words.language == "en" else ("物体", "东西", "图形"))
        space = " " if words.language == "en" else ""
        text = view.say(words.ways.COUNT_SOME, words.colours[colour] + space + noun)
        counted = tuple(thing for thing in things if thing.colour == colour)
    answer = words.sentences(words.begin_upper(words.cells_of(counted)), BOX.format(len(counted)))
    return question("count", words, text, answer, words.look)


def ask_exists(view: View) -> Question:
    rng, scene, words = view.rng, view.scene, view.words
    what = Thing(rng.choice(SHAPES), rng.choice(COLOURS), 0)
    if scene.things and rng.random() < 0.65:
        seen = rng.choice(scene.things)
        # Often a near miss (the right shape or the right colour only), for which a glance is not enough.
        what = rng.choice((seen, seen, replace(what, shape=seen.shape), replace(what, colour=seen.colour)))
    if rng.random() < 0.3:
        found = [thing for thing in scene.things if thing.shape == what.shape]
        name = words.any_shape(what.shape)
    else:
        found = [thing for thing in scene.things if (thing.shape, thing.colour) == (what.shape, what.colour)]
        name = words.a_thing(what)
    text = view.say(words.ways.EXISTS, name)
    return question("exists", words, text, words.there if found else words.not_there, words.listed(tuple(found)))


def ask_where(view: View) -> Question | None:
    words = view.words
    if view.rng.random() < 0.1:
        shape = _absent(view)
        if shape:
            text = view.say(words.ways.WHERE, words.the_shape(shape))
            return question("where", words, text, words.no_such.format(words.shapes[shape]), words.look)
    thing, name = _named(view)
    if thing is None:
        return None
    text = view.say(words.ways.WHERE, name)
    return question("where", words, text, words.where_answer(thing.cell), words.placed(thing))


def ask_at(view: View) -> Question | None:
    rng, things, words = view.rng, view.scene.things, view.words
    if rng.random() < 0.3:  # a whole side, where only one thing is
        region, found = rng.choice(list(sides(things).items()))
        if words.language == "zh" and region in ("left", "right") and len({t.row for t in found}) != 1:
            return None
        if len(found) != 1:
            return None
    else:
        cell = rng.choice(things).cell if rng.random() < 0.75 else rng.randrange(CELLS)
        found, region = [thing for thing in things if thing.cell == cell], str(cell)
        if len(found) > 1:
            return None
        side = {"3": "left", "5": "right"}.get(region)
        if words.language == "zh" and side and len(sides(things)[side]) != len(found):
            return None
    text = view.say(words.ways.AT, words.at_region(rng, region))
    answer = words.at_answer(found[0] if found else None)
    return question("at", words, text, answer, words.listed(tuple(found)))


def ask_relation(view: View) -> Question | None:
    """Left or right, above or below: asked only where one of the two holds."""
    rng, words = view.rng, view.words
    unique = [thing for thing in view.scene.things if count_like(view.scene, thing, same_looks) == 1]
    pairs = [(one, other) for one in unique for other in unique if one is not other]
    choices = [(axis, one, other) for axis in AXES for one, other in pairs if relation(axis, one, other)]
    if not choices:
        return None
    axis, one, other = rng.choice(choices)
    if rng.random() < 0.35 and _is_only_shape(view.scene, one) and _is_only_shape(view.scene, other):
        names = words.the_shape(one.shape), words.the_shape(other.shape)
    else:
        names = words.the_thing(one), words.the_thing(other)
    text = view.say(words.ways.RELATION[axis], *names)
    places = words.joined([words.placed(one, full=False), words.placed(other, full=False)])
    verdict = words.begin_upper(words.relations[relation(axis, one, other)]) + words.stop
    return question("relation", words, text, words.sentences(words.begin_upper(places), verdict), words.look)


def ask_background(view: View) -> Question:
    words = view.words
    text = view.say(words.ways.BACKGROUND)
    return question(
        "background", words, text, words.colour_answer.format(words.colours[view.scene.background]), words.look
    )


def ask_number(view: View) -> Question:
    words = view.words
    return question("number", words, view.say(words.ways.NUMBER), BOX.format(view.scene.number), words.look)


def ask_describe(view: View) -> Question:
    words, scene = view.words, view.scene
    text = view.say(words.ways.DESCRIBE)
    if scene.number:
        answer = words.number_scene.format(scene.number, words.colours[scene.number_colour])
        return question("describe", words, text, answer, words.look)
    return question("describe", words, text, words.listed(scene.things), words.look)


def ask_box(view: View) -> Question | None:
    """The place of one thing as GLM writes it: corners in thousandths of the picture."""
    words = view.words
    thing, name = _named(view)
    if thing is None:
        return None
    text = view.say(words.ways.BOX, name)
    corners = box_of(view.marks[view.scene.things.index(thing)], view.scene)
    answer = BOX.format(f"[[{','.join(str(corner) for corner in corners)}]]")
    return question("box", words, text, answer, words.placed(thing))


def ask_unknown(view: View) -> Question:
    words = view.words
    return question("unknown", words, view.say(words.ways.UNKNOWN), words.cannot_tell, words.look)


def box_of(mark: Mark, scene: Scene) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 in thousandths, rounded to hundredths."""
    (x, y), (a, b) = mark.centre, mark.radius
    edges = (x - a) / scene.width_px, (y - b) / scene.height_px, (x + a) / scene.width_px, (y + b) / scene.height_px
    x1, y1, x2, y2 = (max(0, min(1000, round(edge * 1000 / BOX_STEP) * BOX_STEP)) for edge in edges)
    return x1, y1, x2, y2


def sides(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    """What lies in the first and the last column and row."""
    return {
        "left": [thing for thing in things if thing.column == 0],
        "right": [thing for thing in things if thing.column == 2],
        "top": [thing for thing in things if thing.row == 0],
        "bottom": [thing for thing in things if thing.row == 2],
    }


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
    "box": ask_box,
    "unknown": ask_unknown,
}


def question(kind: str, words: Wording, text: str, answer: str, reasoning: str) -> Question:
    return Question(kind, words.language, text, words.begin_upper(answer), words.begin_upper(reasoning))


def same_looks(one: Thing, other: Thing) -> bool:
    return one.shape == other.shape and one.colour == other.colour


def count_like(scene: Scene, thing: Thing, alike: Callable[[Thing, Thing], bool]) -> int:
    return sum(alike(thing, other) for other in scene.things)


def _is_only_shape(scene: Scene, thing: Thing) -> bool:
    return count_like(scene, thing, lambda a, b: a.shape == b.shape) == 1


def _named(view: View) -> tuple[Thing | None, str]:
    """A thing that its shape alone, or its looks, tell from all others, and how it is called."""
    words = view.words
    if view.rng.random() < 0.4:
        thing = _only_one(view, lambda a, b: a.shape == b.shape)
        return thing, words.the_shape(thing.shape) if thing else ""
    thing = _only_one(view, same_looks)
    return thing, words.the_thing(thing) if thing else ""


def _absent(view: View) -> str:
    """A shape that is not in the picture; empty when all are."""
    absent = [shape for shape in SHAPES if all(thing.shape != shape for thing in view.scene.things)]
    return view.rng.choice(absent) if absent else ""


def _only_one(view: View, alike: Callable[[Thing, Thing], bool]) -> Thing | None:
    unique = [thing for thing in view.scene.things if count_like(view.scene, thing, alike) == 1]
    return view.rng.choice(unique) if unique else None


def _present_or_any(rng: random.Random, present: list[str], every: tuple[str, ...]) -> str:
    return rng.choice(present) if rng.random() < 0.7 else rng.choice(every)
