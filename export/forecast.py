"""How much memory and time a build will take, from its outline and from what this machine has been measured to do."""

from __future__ import annotations

import os
from dataclasses import dataclass

from export.outline import Outline
from export.rates import Rates

READERS = 4
"""Files of weights that are read through at a time."""


@dataclass(frozen=True)
class Forecast:
    """Peak resident bytes of the building process and seconds until it ends."""

    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class Shard:
    """A file of weights to be read through: its size, and how much of it is in memory already."""

    size: int
    cached_share: float


def forecast(
    plan: Outline, shards: list[Shard], rates: Rates, can_link: bool, base_bytes: int, base_s: float
) -> Forecast:
    """`base_bytes` and `base_s` are what a process that has only just started takes."""
    copied = 0 if can_link else sum(plan.files[name] for name in plan.linked)
    seconds = _read_through(shards, rates) + sum(
        _seconds(reading.stored, reading.written, reading.bits, rates) for reading in plan.readings
    )
    return Forecast(
        base_bytes + plan.kept + max((reading.peak for reading in plan.readings), default=0),
        base_s + seconds + copied / rates.writing,
    )


def _read_through(shards: list[Shard], rates: Rates) -> float:
    """Every file is hashed once: as fast as the cores hash or the disk reads, whichever is slower."""
    hands = max(1, min(READERS, len(shards), os.cpu_count() or 1))
    hashing = sum(shard.size for shard in shards) / (rates.hashing * hands)
    reading = sum(shard.size * (1 - shard.cached_share) for shard in shards) / rates.reading
    return max(hashing, reading)


def _seconds(stored: int, written: int, bits: int | None, rates: Rates) -> float:
    """One tensor: loaded, made into what it is to be, and written. It was read through before, so memory holds it.

    One that is rounded is loaded twice, for its scales and for its codes.
    """
    making = stored / rates.casting if bits is None else stored / rates.rounding[bits]
    return stored * (1 if bits is None else 2) / rates.loading + making + written / rates.writing
