"""Repeating and looking up: a small model must learn to take words from its prompt before tools and JSON make sense."""

from __future__ import annotations

import json
import random

from demo.lessons.phrases import as_typed
from demo.lessons.questions import Question
from demo.lessons.structured import SYLLABLES
from demo.lessons.tools import CITIES, CITIES_ZH, NAMES, NAMES_ZH, RESULT_WORDS, ROOMS, ROOMS_ZH, WORDS, WORDS_ZH

PLAIN = {
    "en": (*CITIES, *NAMES, *ROOMS, *WORDS, *RESULT_WORDS, "red", "blue", "circle", "star", "top left", "bottom"),
    "zh": (*CITIES_ZH, *NAMES_ZH, *ROOMS_ZH, *WORDS_ZH, "红色", "蓝色", "圆形", "星形", "左上角", "下方"),
}
REPEAT = {"en": ("Repeat: {}", "Say {}", "Copy this: {}"), "zh": ("重复：{}", "说{}", "照抄：{}")}
VALUE = {"en": ("What is {}?", "{}?", "The value of {}?"), "zh": ("{}是什么？", "{}？", "{}的值？")}
NAME = {"en": ("Which one is {}?", "Whose value is {}?"), "zh": ("哪个是{}？", "谁的值是{}？")}
THOUGHT = {"en": "I look at the words.", "zh": "看文字。"}


def random_copy(rng: random.Random) -> Question:
    """A text to repeat, or a table with something to look up in it."""
    language = rng.choice(("en", "en", "zh"))
    if rng.random() < 0.5:
        answer = rng.choice((" ", "", "_", ", ", " ")).join(_word(rng, language) for _ in range(rng.randint(2, 10)))
        text = rng.choice(REPEAT[language]).format(answer)
    else:
        table = {_name(rng): _word(rng, language) for _ in range(rng.randint(2, 5))}
        key, value = rng.choice(list(table.items()))
        asks_value = rng.random() < 0.6 or list(table.values()).count(value) > 1
        asked, answer = (key, value) if asks_value else (value, key)
        question = rng.choice((VALUE if asks_value else NAME)[language]).format(asked)
        text = f"{_written(rng, table)}\n{as_typed(rng, language, question)}"
    return Question("copy", language, text, answer, THOUGHT[language])


def _word(rng: random.Random, language: str) -> str:
    lot = rng.random()
    if lot < 0.4:
        return rng.choice(PLAIN[language])
    if lot < 0.6:
        return str(rng.randint(0, 9999))
    return _name(rng)


def _name(rng: random.Random) -> str:
    lot = rng.random()
    name = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))
    if lot < 0.2:
        return name.title()
    if lot < 0.4:
        return f"{name}_{rng.choice(SYLLABLES)}"
    if lot < 0.6:
        return f"{rng.choice(WORDS)}{name.title()}"
    return name


def _written(rng: random.Random, table: dict[str, str]) -> str:
    if rng.random() < 0.6:
        return json.dumps(table, ensure_ascii=False)
    return "\n".join(f"{name}: {value}" for name, value in table.items())
