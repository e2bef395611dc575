"""Every question has one right answer, and it is true of the scene."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from demo.exam import unseen
from demo.lessons.phrases import Patterns, phrasings
from demo.lessons.picture_chats import picture_chat
from demo.lessons.questions import ASKERS, KINDS, NUMBER_KINDS, THING_KINDS, View, random_question, relation
from demo.lessons.wordings import AXES, WORDINGS
from demo.pictures.drawing import Mark, draw_marked
from demo.pictures.scenes import Scene, Thing, random_scene

RED_STAR, BLUE_CIRCLE = Thing("star", "red", 0), Thing("circle", "blue", 5)
SCENE = Scene(112, 112, "grey", (RED_STAR, BLUE_CIRCLE), "", "", drawing_seed=0)
MARKS = draw_marked(SCENE)[1]


def test_all_kinds_are_asked_in_both_languages() -> None:
    rng = random.Random(1)
    chats = [picture_chat(rng, scene, _marks(scene)) for _ in range(2500) for scene in (random_scene(rng),)]
    asked = {(turn.asked.kind, turn.asked.language) for chat in chats for turn in chat.turns}
    assert {(kind, language) for kind in (*KINDS, "json", "turns") for language in WORDINGS} == asked


def test_the_same_question_about_the_same_scene_never_has_two_answers() -> None:
    rng = random.Random(2)
    for _ in range(60):
        scene = random_scene(rng)
        answers: dict[str, str] = {}
        for question in filter(None, (random_question(rng, scene, _marks(scene)) for _ in range(60))):
            assert answers.setdefault(question.text, question.answer) == question.answer


class Plainly(View):
    """Puts everything in the first of its phrasings."""

    def say(self, patterns: Patterns, *names: str) -> str:
        text = next(phrasings(patterns[:1])).format(*names)
        return text[:1].upper() + text[1:]


def test_answers_about_a_known_scene_are_true() -> None:
    expected = {
        "What colour is the star?": "Red.",
        "What colour is the cross?": "I see no cross.",
        "What shape is the blue thing?": "A circle.",
        "How many things are there?": "Top left, centre right. <|begin_of_box|>2<|end_of_box|>",
        "How many stars are there?": "Top left. <|begin_of_box|>1<|end_of_box|>",
        "How many squares are there?": "Nothing. <|begin_of_box|>0<|end_of_box|>",
        "Is there a red star?": "Yes.",
        "Is there a red circle?": "No.",
        "Where is the circle?": "Centre right.",
        "Where is the square?": "I see no square.",
        "What is at the top left?": "A red star.",
        "What is at the centre?": "Nothing.",
        "What is at the left side?": "A red star.",
        "What colour is the background?": "Grey.",
        "Is the red star above or below the blue circle?": "Red star top left, blue circle centre right. Above.",
        "Is the circle left or right of the star?": "Blue circle centre right, red star top left. Right.",
        "Describe the picture.": "Red star top left, blue circle centre right.",
        "Give the bounding box of the red star.": "<|begin_of_box|>[[70,60,290,280]]<|end_of_box|>",
        "What song is this?": "I can't tell from the picture.",
        "请描述一下这张图。": "左上角红色星形，右边蓝色圆形。",
        "图中有红色圆形吗？": "没有。",
        "红色星形在蓝色圆形的左侧还是右侧？": "左上角红色星形，右边蓝色圆形。左侧。",
    }
    found = _many(SCENE, MARKS)
    assert {text: found[text] for text in expected} == expected


def test_a_number_is_read_and_described() -> None:
    found = _many(Scene(112, 112, "white", (), "407", "pink", drawing_seed=0), [])
    assert found["What number is this?"] == "<|begin_of_box|>407<|end_of_box|>"
    assert found["Describe the picture."] == "The number 407 in pink."
    assert found["请描述一下这张图。"] == "粉色数字407。"
    assert found["What colour is the number?"] == "Pink."


@pytest.mark.parametrize("text", ["描述这张图片。", "图片里有什么？", "What do you see?", "Describe this image."])
def test_the_commonest_ways_to_ask_for_a_description_are_among_the_phrasings(text: str) -> None:
    assert any(text in set(phrasings(words.ways.DESCRIBE)) for words in WORDINGS.values())


def test_relations_are_opposites_and_hold_only_where_the_things_differ() -> None:
    for axis, (before, after) in AXES.items():
        assert relation(axis, RED_STAR, BLUE_CIRCLE) == before
        assert relation(axis, BLUE_CIRCLE, RED_STAR) == after
        assert relation(axis, RED_STAR, RED_STAR) == ""


def test_each_side_of_a_relation_is_right_about_equally_often() -> None:
    rng = random.Random(3)
    asked = [random_question(rng, random_scene(rng), [], "relation") for _ in range(3000)]
    verdicts = Counter(q.answer.split(". ")[-1] for q in asked if q is not None and q.language == "en")
    assert set(verdicts) == {"Left.", "Right.", "Above.", "Below."}
    assert min(verdicts.values()) > 0.15 * verdicts.total()


def test_boxes_hold_the_drawn_thing() -> None:
    for asked in unseen(12, ("box",)):
        x1, y1, x2, y2 = (int(part) for part in asked.expected.split("[[")[1].split("]]")[0].split(","))
        assert 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000
        assert {value % 10 for value in (x1, y1, x2, y2)} == {0}


def _marks(scene: Scene) -> list[Mark]:
    """Where the things would be drawn, without drawing them."""
    return [
        Mark(thing.shape, thing.colour, thing.cell, (thing.x * 100, thing.y * 100), (5, 5)) for thing in scene.things
    ]


def _many(scene: Scene, marks: list[Mark]) -> dict[str, str]:
    """Every question the scene allows, plainly put, and its answer."""
    rng = random.Random(4)
    kinds = THING_KINDS if scene.things else NUMBER_KINDS
    views = [Plainly(rng, scene, marks, words) for words in WORDINGS.values()]
    asked = (ASKERS[kind](view) for kind in kinds for view in views for _ in range(400))
    return {question.text: question.answer for question in asked if question is not None}
