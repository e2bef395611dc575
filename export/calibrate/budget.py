"""Chooses which layers keep 8 bits, so that a given average of bits is spent where it makes good most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST, MOST = 4, 8
"""Bits of a weight's code."""


@dataclass(frozen=True)
class Harm:
    """What rounding some weights to 4 bits does to the output of their layer of the decoder: the square of the error
    over the square of what is right. Those that are given the same stand together. `size` counts their numbers."""

    error: float
    size: int
    weights: tuple[str, ...]


def kept_in_8_bits(harms: Sequence[Harm], bits: float) -> frozenset[str]:
    """The weights that keep 8 bits where all may have `bits` on average: those whose rounding does most harm for their
    size come first, and what no longer fits is passed over."""
    left = round((bits - FEWEST) / (MOST - FEWEST) * sum(harm.size for harm in harms))
    chosen = set[str]()
    for harm in sorted(harms, key=lambda harm: (-harm.error / harm.size, harm.weights)):
        if harm.size <= left:
            chosen.update(harm.weights)
            left -= harm.size
    return frozenset(chosen)
