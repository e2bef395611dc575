"""How much sooner a second question about the same picture gets its first token than the first question did."""

from __future__ import annotations

from collections.abc import Callable

from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import FULL
from bench.load.closed_loop import ask
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Asker, Question
from bench.records import Row, Spread
from bench.servers.processes import service_on

_PROMPT_TOKENS = 24
_ROUNDS_OF_WARMING = 1

Say = Callable[[str], None]


def measure(threads: int, rounds: int, say: Say) -> list[Row]:
    """One row: the time of an answer of one token over HTTP, second question over first, each round a new photo."""
    build = build_of(checkpoint_of(FULL, say), FP32, say)
    asker = Asker(Preparer(build).tokenizer, seed=4)
    ratios = []
    with service_on(build, threads) as url:
        for number in range(-_ROUNDS_OF_WARMING, rounds):
            image = asker.image(PHOTO)
            first, second = (
                ask(url, Question(image, asker.prompt(_PROMPT_TOKENS)), max_tokens=1).seconds for _ in range(2)
            )
            if number >= 0:
                ratios.append(second / first)
                say(f"Follow-up {number + 1} of {rounds}: first token in {ratios[-1]:.3f} of the first question's time")
    return [{**Spread.of(ratios).fields("ttft_ratio"), "rounds": rounds, "threads": threads}]
