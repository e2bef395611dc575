"""What the measurements share: one run with its rounds, sides that take turns, and a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import Shape
from bench.records import Row, Say, rounded, spread

_T = TypeVar("_T")


@dataclass(frozen=True)
class Run:
    """One measurement under way: the model's threads (0 where none computes), its rounds, and where progress goes."""

    threads: int
    rounds: int
    say: Say

    def build(self, model: Shape | Path, precision: str = FP32) -> Path:
        """The build of a synthetic model or of a checkpoint folder."""
        checkpoint = checkpoint_of(model, self.say) if isinstance(model, Shape) else model
        return build_of(checkpoint, precision, self.say)

    def spreads(self, title: str, one_round: Callable[[int], Mapping[str, float]], warm_ups: int = 0) -> Row:
        """The spread of each value over all rounds; warm-ups come first, have negative numbers and do not count."""
        found = []
        for number in range(-warm_ups, self.rounds):
            values = one_round(number)
            if number >= 0:
                found.append(values)
                shown = ", ".join(f"{name} {rounded(value):g}" for name, value in values.items())
                self.say(f"{title}, round {number + 1} of {self.rounds}: {shown}")
        return spreads(found)

    def row(self, **fields: Any) -> Row:
        """One row of the results."""
        return {**fields, "rounds": self.rounds, "threads": self.threads}


def spreads(rounds: Sequence[Mapping[str, float]]) -> Row:
    """The spread of each value that every round gave."""
    row: Row = {}
    for name in rounds[0]:
        row |= spread(name, [values[name] for values in rounds])
    return row


def in_turn(turn: int, first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
    """What both sides return. Who goes first changes with `turn`, so that a machine growing busier favours neither."""
    if turn % 2:
        later = second()
        return first(), later
    return first(), second()


def seconds(work: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """How long each of several calls took."""
    found = []
    for _ in range(times):
        began = clock()
        work()
        found.append(clock() - began)
    return found
