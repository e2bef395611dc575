"""How often the checkpoint is right on unseen questions: `python -m demo.evaluate [--questions 1000]`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from demo.exam import CHAT_KINDS, KINDS, PICTURE_KINDS, SECOND_SEED, unseen
from demo.golden_set import CHECKPOINT
from demo.reference import Reference

FIRST_SEED = 100_000  # past the seeds of the golden set
# The column of the table: the first seed of its questions and the kinds it has.
PROGRAMS = {
    "own pictures": (FIRST_SEED, KINDS),
    "second program": (SECOND_SEED + FIRST_SEED, (*PICTURE_KINDS, "turns", "pair")),
}

Outcomes = dict[str, dict[str, list[bool]]]  # program -> kind, language ... -> right or wrong


def evaluate(folder: Path, questions: int, mistakes_shown: int = 0) -> Outcomes:
    """Right or wrong for each question by kind, and again by language and by thinking, for each drawing program; a
    process for each program."""
    with ProcessPoolExecutor(len(PROGRAMS), get_context("spawn")) as pool:
        found = [pool.submit(_of_program, folder, program, questions, mistakes_shown) for program in PROGRAMS]
        return {program: outcomes.result() for program, outcomes in zip(PROGRAMS, found, strict=True)}


def _of_program(folder: Path, program: str, questions: int, mistakes_shown: int) -> dict[str, list[bool]]:
    torch.set_num_threads(1)
    reference = Reference(folder)
    right: dict[str, list[bool]] = defaultdict(list)
    first_seed, kinds = PROGRAMS[program]
    for number, asked in enumerate(unseen(questions, kinds, first_seed=first_seed)):
        if number % 100 == 99:
            print(f"{program}: {number + 1} of {questions}", file=sys.stderr, flush=True)
        answer = reference.ask(asked).text
        is_right = asked.is_right(answer)
        thinking = "thinking on" if asked.thinking else "thinking off"
        for name in (asked.kind, "all", asked.question.language, thinking):
            right[name].append(is_right)
        if not is_right and mistakes_shown > 0:
            mistakes_shown -= 1
            print(
                f"{program} {asked.seed} {asked.kind}: {asked.question.text} | {asked.expected} | {answer}", flush=True
            )
    return right


def table(right: Outcomes) -> str:
    """A markdown table, kinds first; a cell says how many of how many are right."""
    found = {name for outcomes in right.values() for name in outcomes}
    names = [
        *(kind for kind in (*PICTURE_KINDS, *CHAT_KINDS, "greeting") if kind in found),
        *sorted(found - set(KINDS)),
    ]
    lines = [f"| questions | {' | '.join(right)} |", "|---|" + "---|" * len(right)]
    for name in names:
        cells = (_cell(outcomes.get(name, [])) for outcomes in right.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(outcomes: list[bool]) -> str:
    return f"{100 * sum(outcomes) / len(outcomes):.1f} % of {len(outcomes)}" if outcomes else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--questions", type=int, default=950, help="so many for each drawing program")
    parser.add_argument("--mistakes", type=int, default=0, help="print this many wrong answers")
    arguments = parser.parse_args()
    print(table(evaluate(arguments.checkpoint, arguments.questions, arguments.mistakes)))


if __name__ == "__main__":
    main()
