"""Every question has one right answer, and it is true of the scene."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from demo import questions
from demo.phrases import Patterns, phrasing, phrasings
from demo.questions import KINDS, Question, random_question, random_questions, relation
from demo.scenes import Scene, Thing, random_scene
from demo.wordings import AXES, WORDINGS

RED_STAR, BLUE_CIRCLE = Thing("star", "red", 0), Thing("circle", "blue", 5)
SCENE = Scene(112, 112, "grey", (RED_STAR, BLUE_CIRCLE), "", "", drawing_seed=0)


COMMON = {
    "What colour is the {0}?",
    "What shape is the {0} object?",
    "How many things are there?",
    "How many {0} are there?",
    "Is there {0}?",
    "Where is {0}?",
    "What is at {0}?",
    "What colour is the background?",
    "Is {0} above or below {1}?",
    "Is {0} left or right of {1}?",
    "Describe the picture.",
    "Read the number.",
    "Who is this?",
    "{0}在{1}的左侧还是右侧？",
    "图中有什么？",
    "有{0}吗？",
    "那里天气怎么样？",
}


def test_all_kinds_are_asked_in_both_languages() -> None:
    rng = random.Random(1)
    asked = [question for _ in range(1500) for question in random_questions(rng, random_scene(rng), 4)]
    assert {(question.kind, question.language) for question in asked} == {
        (kind, language) for kind in KINDS for language in WORDINGS
    }


def test_the_same_question_about_the_same_scene_never_has_two_answers() -> None:
    rng = random.Random(2)
    for _ in range(60):
        scene = random_scene(rng)
        answers: dict[str, str] = {}
        for question in random_questions(rng, scene, 60):
            assert answers.setdefault(question.text, question.answer) == question.answer


def test_answers_about_a_known_scene_are_true() -> None:
    expected = {
        "What colour is the star?": "Red.",
        "What shape is the blue object?": "A circle.",
        "How many things are there?": "Top left, centre right. <|begin_of_box|>2<|end_of_box|>",
        "How many stars are there?": "Top left. <|begin_of_box|>1<|end_of_box|>",
        "How many squares are there?": "Nothing. <|begin_of_box|>0<|end_of_box|>",
        "Is there a red star?": "Yes.",
        "Is there a red circle?": "No.",
        "Where is the circle?": "Centre right.",
        "What is at the top left?": "A red star.",
        "What is at the centre?": "Nothing.",
        "What colour is the background?": "Grey.",
        "Is the red star above or below the blue circle?": "Red star top left, blue circle centre right. Above.",
        "Is the blue circle left or right of the red star?": "Blue circle centre right, red star top left. Right.",
        "Describe the picture.": "Red star top left, blue circle centre right.",
        "红色星形在蓝色圆形的左侧还是右侧？": "左上角红色星形，右边蓝色圆形。左侧。",
        "图中有什么？": "左上角红色星形，右边蓝色圆形。",
        "有红色圆形吗？": "没有。",
        "Where is the cross?": "I see no cross.",
        "What colour is the cross?": "I see no cross.",
        "Who is this?": "I can't tell from the picture.",
        "那里天气怎么样？": "从图片中看不出来。",
    }
    found = {question.text: question.answer for question in _many(SCENE)}
    assert {text: found[text] for text in expected} == expected


def test_a_number_is_read_and_described() -> None:
    scene = Scene(112, 112, "white", (), "407", "pink", drawing_seed=0)
    found = {question.text: question.answer for question in _many(scene)}
    assert found["Read the number."] == "<|begin_of_box|>407<|end_of_box|>"
    assert found["Describe the picture."] == "The number 407 in pink."
    assert found["图中有什么？"] == "粉色数字407。"


def test_relations_are_opposites_and_hold_only_where_the_things_differ() -> None:
    for axis, (before, after) in AXES.items():
        assert relation(axis, RED_STAR, BLUE_CIRCLE) == before
        assert relation(axis, BLUE_CIRCLE, RED_STAR) == after
        assert relation(axis, RED_STAR, RED_STAR) == ""


def test_each_side_of_a_relation_is_right_about_equally_often() -> None:
    rng = random.Random(3)
    asked = [random_question(rng, random_scene(rng), "relation") for _ in range(3000)]
    verdicts = Counter(q.answer.split(". ")[-1] for q in asked if q is not None and q.language == "en")
    assert set(verdicts) == {"Left.", "Right.", "Above.", "Below."}
    assert min(verdicts.values()) > 0.15 * verdicts.total()


def _many(scene: Scene) -> list[Question]:
    """Every kind the scene allows, in its commonest phrasings, often enough that each comes up."""

    def common(rng: random.Random, patterns: Patterns, held_out: bool) -> str:
        texts = [text for text in phrasings(patterns) if text in COMMON]
        return rng.choice(texts) if texts else phrasing(rng, patterns, held_out)

    rng = random.Random(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "phrasing", common)
        patch.setattr(questions, "as_typed", lambda _rng, _language, text: text)
        asked = (random_question(rng, scene, kind) for kind in KINDS if kind != "greeting" for _ in range(300))
        return [question for question in asked if question is not None]
