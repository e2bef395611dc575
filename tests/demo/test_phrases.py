"""There are many ways to ask for each thing, and some are kept from training."""

from __future__ import annotations

import random

import pytest

from demo.lessons.pairs import WAYS as PAIR_WAYS
from demo.lessons.phrases import Patterns, as_typed, is_held_out, phrasing, phrasings
from demo.lessons.questions import random_greeting
from demo.lessons.watching import WAYS as FILM_WAYS
from demo.lessons.wordings import LANGUAGES, WORDINGS

LEAST_WAYS = 60


def all_patterns(language: str) -> dict[str, Patterns]:
    ways = WORDINGS[language].ways
    named = {name: value for name, value in vars(ways).items() if name.isupper() and isinstance(value, tuple)}
    greetings = {f"greeting {i}": patterns for i, (patterns, _, _) in enumerate(named.pop("GREETINGS"))}
    for name in ("RELATION", "SECOND_TURN"):
        named |= {f"{name} {key}": patterns for key, patterns in getattr(ways, name).items()}
    return named | greetings | PAIR_WAYS[language] | FILM_WAYS[language]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["DESCRIBE", "COUNT", "WHERE"])
def test_there_are_sixty_ways_to_ask(language: str, name: str) -> None:
    assert len(set(phrasings(getattr(WORDINGS[language].ways, name)))) >= LEAST_WAYS


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_sixty_ways_to_ask_for_a_comparison(language: str) -> None:
    relations = WORDINGS[language].ways.RELATION.values()
    patterns = [*relations, *(PAIR_WAYS[language][kind] for kind in ("more", "differ", "larger"))]
    assert len({text for some in patterns for text in phrasings(some)}) >= LEAST_WAYS


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_phrasing_keeps_a_bracket_or_a_bar(language: str) -> None:
    for name, patterns in all_patterns(language).items():
        for text in phrasings(patterns):
            assert not set("[]|") & set(text.replace("[{1}]", "")), (name, text)
            assert text.strip() == text and "  " not in text, (name, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_never_shows_a_phrasing_that_is_held_out(language: str) -> None:
    rng = random.Random(1)
    for patterns in all_patterns(language).values():
        if any(not is_held_out(text) for text in phrasings(patterns)):
            assert not any(is_held_out(phrasing(rng, patterns)) for _ in range(60))


def test_what_is_held_out_can_be_asked_for() -> None:
    rng = random.Random(2)
    for words in WORDINGS.values():
        assert all(is_held_out(phrasing(rng, words.ways.DESCRIBE, held_out=True)) for _ in range(40))


def test_a_small_set_that_holds_nothing_out_still_gives_a_phrasing() -> None:
    one = next(text for text in ("One.", "Two.", "Three.") if not is_held_out(text))
    assert phrasing(random.Random(3), (one,), held_out=True) == one


def test_typing_keeps_the_words() -> None:
    rng = random.Random(4)
    for _ in range(200):
        assert "is the star" in as_typed(rng, "en", "Where is the star?")


def test_greetings_have_one_answer_each() -> None:
    rng = random.Random(5)
    answers: dict[str, str] = {}
    for _ in range(3000):
        greeting = random_greeting(rng)
        assert answers.setdefault(greeting.text, greeting.answer) == greeting.answer
