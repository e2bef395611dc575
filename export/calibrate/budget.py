"""Chooses which layers keep 8 bits, so that a given average of bits is spent where it makes good most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEWEST, MOST = 4, 8
"""Bits of a weight's code."""


@dataclass(frozen=True)
class Harm:
    """What rounding one weight to 4 bits does to the output of its layer of the decoder: the square of the error over
    the square of what is right. `size` counts the weight's numbers."""

    error: float
    size: int


def kept_in_8_bits(harms: Mapping[str, Harm], bits: float) -> frozenset[str]:
    """The weights that keep 8 bits where all may have `bits` on average: those whose rounding does most harm for their
    size come first, and what no longer fits is passed over."""
    left = round((bits - FEWEST) / (MOST - FEWEST) * sum(harm.size for harm in harms.values()))
    chosen = set()
    for name in sorted(harms, key=lambda name: (-harms[name].error / harms[name].size, name)):
        if harms[name].size <= left:
            chosen.add(name)
            left -= harms[name].size
    return frozenset(chosen)
