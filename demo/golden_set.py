"""The frozen golden set: unseen questions, how to draw their pictures again, and what counts as right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from demo.exam import MOST_TOKENS, SECOND_SEED, Asked, ask, drawn_image, is_right, plain

__all__ = [
    "CANARY_SEED",
    "CHECKPOINT",
    "GOLDEN",
    "MOST_TOKENS",
    "SECOND_SEED",
    "GoldenChat",
    "GoldenQuestion",
    "ParityCase",
    "drawn_image",
    "golden_chats",
    "golden_questions",
    "parity_cases",
    "plain",
]

CHECKPOINT = Path(__file__).parent / "checkpoint"
GOLDEN = CHECKPOINT / "golden"
CANARY_SEED = 842  # two things, far apart


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
        return is_right(self.kind, self.answer, self.expected)

    def is_said_by(self, ids: list[int], text: str) -> bool:
        """Whether another answer says what transformers answered: to the letter, boxes by their overlap, JSON by its
        values."""
        return ids == self.answer_ids or is_right(self.kind, text, self.answer)


@dataclass(frozen=True)
class GoldenChat(GoldenQuestion):
    """One line of chats.jsonl: turns, two pictures, a video or tools; its seed draws and writes all of it again."""

    @property
    def asked(self) -> Asked:
        found = ask(self.seed, self.kind)
        if found is None:
            raise ValueError(f"the seed {self.seed} asks nothing of the kind {self.kind}")
        return found


@dataclass(frozen=True)
class ParityCase:
    """One line of cases.json: a prompt, its ids, and the ids transformers generated (logits lie beside it)."""

    name: str
    messages: list[dict[str, object]]
    thinking: bool
    input_ids: list[int]
    image_grid: list[list[int]]
    generated_ids: list[int]


def golden_questions(folder: Path = GOLDEN) -> list[GoldenQuestion]:
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [GoldenQuestion(**json.loads(line)) for line in lines]


def golden_chats(folder: Path = GOLDEN) -> list[GoldenChat]:
    lines = (folder / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    return [GoldenChat(**json.loads(line)) for line in lines]


def parity_cases(folder: Path = GOLDEN) -> list[ParityCase]:
    return [ParityCase(**case) for case in json.loads((folder / "cases.json").read_text(encoding="utf-8"))]
