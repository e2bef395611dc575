"""How much memory and time a build will take, from its outline and from what this machine has been measured to do."""

from __future__ import annotations

from dataclasses import dataclass

from export.build.inventory import BuildInventory
from export.checkpoint.header_weights import Reading
from export.checkpoint.weights import READERS
from export.plan.machine_rates import Measured, Rates
from glmserve.system.cpu_count import cores


@dataclass(frozen=True)
class Forecast:
    """Peak resident bytes of the building process, seconds of a core that it needs, and seconds until it ends where
    others want the cores and the disk as much as they do now."""

    peak_bytes: int
    core_seconds: float
    seconds: float


@dataclass(frozen=True)
class Shard:
    """A file of weights to be read through: its size, and how much of it is in memory already."""

    size: int
    cached_share: float


@dataclass(frozen=True)
class Base:
    """What a process that has only just started has taken: bytes, and seconds by the core's clock and the wall's."""

    bytes: int
    core_s: float
    wall_s: float


def forecast(plan: BuildInventory, shards: list[Shard], rates: Measured, can_link: bool, base: Base) -> Forecast:
    """Of a build with this outline from these files, on a machine with these rates."""
    copied = 0 if can_link else sum(plan.files[name] for name in plan.linked)
    hands = max(1, min(READERS, len(shards), cores()))
    return Forecast(
        base.bytes + plan.kept + max((reading.peak for reading in plan.readings), default=0),
        base.core_s + _hashing(shards, rates.core) + _writing(plan, copied, rates.core),
        base.wall_s
        + max(_hashing(shards, rates.wall) / hands, _fetching(shards, rates.wall))
        + _writing(plan, copied, rates.wall),
    )


def _hashing(shards: list[Shard], rates: Rates) -> float:
    """Every file is read through once, for its SHA-256."""
    return sum(shard.size for shard in shards) / rates.hashing


def _fetching(shards: list[Shard], rates: Rates) -> float:
    """What is not in memory comes from the disk, meanwhile."""
    return sum(shard.size * (1 - shard.cached_share) for shard in shards) / rates.reading


def _writing(plan: BuildInventory, copied: int, rates: Rates) -> float:
    return copied / rates.writing + sum(_making(reading, rates) for reading in plan.readings)


def _making(reading: Reading, rates: Rates) -> float:
    """One tensor: loaded, made into what it is to be, and written. It was read through before, so memory holds it.

    One that is rounded is loaded twice, for its scales and for its codes.
    """
    if reading.bits is not None:
        making = 2 * reading.stored / rates.loading + reading.stored / rates.rounding[reading.bits]
    elif reading.written == reading.stored:
        making = reading.stored / rates.loading
    else:
        making = reading.stored / rates.loading + reading.stored / rates.casting
    return making + reading.written / rates.writing
