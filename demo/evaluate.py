"""How often it is right on unseen pictures, in unseen phrasings: `python -m demo.evaluate [--questions 1200]`."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from demo.golden_set import CHECKPOINT, plain, unseen
from demo.questions import KINDS
from demo.reference import Reference

FIRST_SEED = 100_000  # past the seeds of the golden set


def evaluate(folder: Path, questions: int, mistakes_shown: int = 0) -> dict[str, list[bool]]:
    """Right or wrong for each question by kind, and again by language, by thinking and by resize."""
    reference = Reference(folder)
    right: dict[str, list[bool]] = defaultdict(list)
    for asked in unseen(questions, first_seed=FIRST_SEED):
        question, image = asked.question, asked.image
        answer = reference.ask(question.text, image, asked.thinking).text
        is_right = plain(answer) == plain(question.answer)
        right[question.kind].append(is_right)
        right["all"].append(is_right)
        right[question.language].append(is_right)
        right["thinking on" if asked.thinking else "thinking off"].append(is_right)
        if image is not None and (image.width % 28 or image.height % 28):
            right["resized"].append(is_right)
        if not is_right and mistakes_shown > 0:
            mistakes_shown -= 1
            print(f"seed {asked.seed} {question.kind}: {question.text} | {question.answer} | {answer}")
    return right


def table(right: dict[str, list[bool]]) -> str:
    """A markdown table, kinds first."""
    names = [*KINDS, *(name for name in right if name not in KINDS)]
    lines = ["| questions | asked | right |", "|---|---|---|"]
    for name in names:
        if outcomes := right.get(name):
            lines.append(f"| {name} | {len(outcomes)} | {100 * sum(outcomes) / len(outcomes):.1f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--questions", type=int, default=1200)
    parser.add_argument("--mistakes", type=int, default=0, help="print this many wrong answers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table(evaluate(arguments.checkpoint, arguments.questions, arguments.mistakes)))


if __name__ == "__main__":
    main()
