"""Lessons are written as the chat template renders them, and the answers of objects, tools and pairs are true."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from demo.exam import KINDS, Asked, is_right, overlap, plain, read_call, unseen
from demo.golden_set import CHECKPOINT
from demo.lessons.chats import Piece, Said, Shown, chat_pieces
from demo.lessons.pairs import random_pair_question
from demo.lessons.phrases import is_held_out
from demo.lessons.questions import View
from demo.lessons.structured import NAMES, ask_json, random_name
from demo.lessons.tools import DOMAINS, random_lesson, random_tool
from demo.lessons.wordings import WORDINGS
from demo.pictures.drawing import draw_marked
from demo.pictures.scenes import Scene, Thing, random_scene

RED_STAR, BLUE_CIRCLE = Thing("star", "red", 0), Thing("circle", "blue", 5)


@cache
def template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, ensure_ascii=True: json.dumps(value, ensure_ascii=ensure_ascii)
    return environment.from_string((CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8"))


def written(asked: Asked) -> str:
    """The prompt that training would write, the pictures as one placeholder each."""
    pieces = [*asked.shared.pieces(), *chat_pieces(asked.chat)]
    return _text(pieces[:-1])


def rendered(asked: Asked) -> str:
    text = template().render(
        messages=asked.messages,
        tools=list(asked.shared.tools) or None,
        add_generation_prompt=True,
        enable_thinking=asked.thinking,
    )
    frames = (f"<|begin_of_image|><|image|><|end_of_image|>{time} seconds" for time in asked.shared.times)
    return text.replace("<|video|>", "".join(frames))


@pytest.mark.parametrize("kind", KINDS)
def test_training_writes_what_the_template_renders(kind: str) -> None:
    for asked in unseen(8, (kind,)):
        assert written(asked) == rendered(asked)


def test_seeds_ask_the_same_again() -> None:
    for one, other in zip(unseen(40), unseen(40), strict=True):
        assert (one.messages, one.expected) == (other.messages, other.expected)
        assert [image.tobytes() for image in one.pictures] == [image.tobytes() for image in other.pictures]


def test_objects_are_json_and_nothing_is_learnt_of_names_that_nobody_gave() -> None:
    rng = random.Random(1)
    unforeseen = 0
    for _ in range(300):
        scene = random_scene(rng)
        asked = ask_json(View(rng, scene, draw_marked(scene)[1], WORDINGS[rng.choice(("en", "zh"))]))
        found = json.loads(asked.answer)
        if not asked.unweighed:
            continue
        unforeseen += 1
        weighed = [asked.answer[a:b] for a, b in _between(asked.unweighed, len(asked.answer))]
        assert sorted(weighed) == sorted(json.dumps(value, ensure_ascii=False) for value in _leaves(found))
    assert unforeseen > 10


def test_the_names_of_evaluations_are_never_trained_on() -> None:
    rng = random.Random(2)
    for meaning in NAMES:
        trained = {random_name(rng, meaning) for _ in range(300)}
        asked = {random_name(rng, meaning, held_out=True) for _ in range(100)}
        assert not trained & asked
    for domain in DOMAINS:
        assert is_held_out(random_tool(rng, domain, held_out=True).name)
        assert not is_held_out(random_tool(rng, domain).name)


def test_calls_name_a_tool_of_the_list_with_its_parameters() -> None:
    rng = random.Random(3)
    calls = 0
    for _ in range(200):
        shared, chats = random_lesson(rng, 3)
        functions = [tool.get("function", tool) for tool in shared.tools]
        parameters = {function["name"]: set(function["parameters"]["properties"]) for function in functions}
        for turn in (turn for chat in chats for turn in chat.turns if turn.call):
            name, arguments = read_call(turn.call)
            assert set(arguments) == parameters[name]
            assert all(str(value) in turn.asked.text for value in arguments.values())
            calls += 1
    assert calls > 300


def test_pairs_are_compared_truly() -> None:
    one = Scene(112, 112, "grey", (RED_STAR, BLUE_CIRCLE), "", "", drawing_seed=0)
    other = Scene(112, 112, "white", (BLUE_CIRCLE,), "", "", drawing_seed=0)
    numbers = [Scene(112, 112, "white", (), value, "red", drawing_seed=0) for value in ("12", "9")]
    rng = random.Random(4)
    answers = {random_pair_question(rng, (one, other), language="en").answer for _ in range(300)}
    assert {"First: 2. Second: 1. The first.", "Both.", "The first.", "Neither."} <= answers
    assert "First: red star top left, blue circle centre right. Second: blue circle centre right." in answers
    assert "First: 12. Second: 9. The first." in {
        random_pair_question(rng, numbers, language="en").answer for _ in range(99)
    }


def test_what_counts_as_right() -> None:
    assert is_right("colour", "<think>Look.</think>\nRed.", "Red.")
    assert not is_right("colour", "Blue.", "Red.")
    assert is_right(
        "box", "<|begin_of_box|>[[100,100,300,310]]<|end_of_box|>", "<|begin_of_box|>[[100,100,300,300]]<|end_of_box|>"
    )
    assert not is_right("box", "[[100,100,300,500]]", "[[100,100,300,300]]")
    assert not is_right("box", "Top left.", "[[100,100,300,300]]")
    assert is_right("json", '{"b": 1, "a": [2]}', '{"a": [2], "b": 1}')
    assert not is_right("json", '{"a": [2], "b"', '{"a": [2], "b": 1}')
    assert plain("<think></think>\n<|begin_of_box|>7<|end_of_box|>") == "7"
    assert overlap([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)


def _text(pieces: Sequence[Piece]) -> str:
    parts = ("<|image|>" if isinstance(p, Shown) else p.text if isinstance(p, Said) else p for p in pieces)
    return (
        "".join(parts)
        .replace("<|user|><|observation|>", "<|observation|>")
        .replace("<|observation|>" * 2, "<|observation|>")
    )


def _between(spans: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    found, start = [], 0
    for a, b in spans:
        if a > start:
            found.append((start, a))
        start = b
    return [*found, (start, end)] if start < end else found


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, list) else [value]
