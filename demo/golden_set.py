"""The frozen golden set: unseen questions, how to draw their pictures again, and what counts as right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from demo.drawing import draw
from demo.questions import KINDS, Question, random_greeting, random_question
from demo.scenes import Scene, random_scene

CHECKPOINT = Path(__file__).parent / "checkpoint"
GOLDEN = CHECKPOINT / "golden"
CANARY_SEED = 33  # two things, far apart
UNSEEN_SEED = 7_000_000_000  # seeds from here on belong to no training


@dataclass(frozen=True)
class Asked:
    """One unseen question: the seed draws its picture, unless it is a greeting."""

    seed: int
    question: Question
    thinking: bool

    @property
    def image(self) -> Image.Image | None:
        return None if self.question.kind == "greeting" else drawn_image(self.seed)


@dataclass(frozen=True)
class GoldenQuestion:
    """One line of questions.jsonl: what was asked, what is right, and what transformers answered greedily."""

    id: str
    seed: int
    kind: str
    language: str
    thinking: bool
    question: str
    expected: str
    answer_ids: list[int]
    answer: str

    @property
    def has_image(self) -> bool:
        return self.kind != "greeting"

    @property
    def is_right(self) -> bool:
        return plain(self.answer) == plain(self.expected)


@dataclass(frozen=True)
class ParityCase:
    """One line of cases.json: a prompt, its ids, and the ids transformers generated (logits lie beside it)."""

    name: str
    messages: list[dict[str, object]]
    thinking: bool
    input_ids: list[int]
    image_grid: list[list[int]]
    generated_ids: list[int]


def drawn_image(seed: int) -> Image.Image:
    """The picture of an unseen seed, pixel for pixel the same each time."""
    return draw(unseen_scene(seed))


def unseen_scene(seed: int) -> Scene:
    return random_scene(random.Random(UNSEEN_SEED + seed))


def unseen(n: int, thinking: float = 0.3, first_seed: int = 0) -> Iterator[Asked]:
    """n unseen questions, the kinds in turn so that each is asked equally often."""
    seed, asked = first_seed, 0
    while asked < n:
        rng = random.Random(f"question {UNSEEN_SEED + seed}")
        kind = KINDS[asked % len(KINDS)]
        question = ask(rng, seed, kind)
        if question is not None:
            yield Asked(seed, question, rng.random() < thinking)
            asked += 1
        seed += 1


def ask(rng: random.Random, seed: int, kind: str) -> Question | None:
    """A question of this kind about the seed's picture, put as training never puts it."""
    if kind == "greeting":
        return random_greeting(rng, held_out=True)
    return random_question(rng, unseen_scene(seed), kind, held_out=True)


def plain(answer: str) -> str:
    """An answer without its thinking and its box."""
    spoken = answer.split("</think>")[-1]
    return spoken.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "").strip()


def golden_questions(folder: Path = GOLDEN) -> list[GoldenQuestion]:
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [GoldenQuestion(**json.loads(line)) for line in lines]


def parity_cases(folder: Path = GOLDEN) -> list[ParityCase]:
    return [ParityCase(**case) for case in json.loads((folder / "cases.json").read_text(encoding="utf-8"))]
