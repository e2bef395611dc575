"""Where a build would fit, on this machine or on graphics cards, by the plan which the engine makes as it starts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from export.precision import Numbers
from glmserve.engine.memory_plan import MemoryPlan, kv_tokens, memory_plan
from glmserve.engine.runtime.device import Host
from glmserve.engine.settings import EngineSettings
from glmserve.model.config import Checkpoint

_MIB = 1024**2


@dataclass(frozen=True)
class Card:
    """A graphics card: its memory in bytes, as its driver reports it, and its compute capability."""

    memory: int
    capability: str


CARDS = {
    "RTX 3090 (24 GB)": Card(24_576 * _MIB, "8.6"),
    "RTX 4090 (24 GB)": Card(24_564 * _MIB, "8.9"),
    "RTX 5090 (32 GB)": Card(32_607 * _MIB, "12.0"),
    "A10G (24 GB)": Card(23_028 * _MIB, "8.6"),
    "A100 (80 GB)": Card(81_920 * _MIB, "8.0"),
    "H100 (80 GB)": Card(81_559 * _MIB, "9.0"),
    "H200 (141 GB)": Card(143_771 * _MIB, "9.0"),
}
THIS_MACHINE = "this machine"
TYPICAL_TOKENS = 1024
"""Prompt and answer of a usual request together, such as one about a photo of a megapixel."""


@dataclass(frozen=True)
class Fit:
    """A card or this machine and the engine's plan on it.

    It has room for `tokens` tokens of KV beside all else; for at most `most_slots` slots of the same length; and with
    short rows for `most_typical` requests of TYPICAL_TOKENS at a time, beside a few of that length.
    """

    card: str
    plan: MemoryPlan
    tokens: int
    most_slots: int
    most_typical: int

    @property
    def fits(self) -> bool:
        return self.plan.total <= self.plan.available

    @property
    def verdict(self) -> str:
        """What fits, or what does not and what would."""
        if self.fits:
            return "fits"
        if self.plan.weights > self.plan.available:
            return "does not fit: the weights alone are too large"
        if self.most_slots:
            return (
                f"does not fit; {self.most_slots:,} slots would, and the engine takes as many as fit where "
                "GLM_ENGINE_SLOTS is not set"
            )
        return "does not fit: no room for a single slot beside the weights"


def fits(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    weights: int,
    numbers: Numbers,
    capabilities: Collection[str] | None = None,
) -> list[Fit]:
    """This machine where `settings` choose the processor, and cards where they choose CUDA: every one, or for engines
    of TensorRT for RTX, whose rows are of one size, those of `capabilities`. The build's graphs and weights have
    `weights` bytes. Short rows are tried, whatever `settings` say of them."""
    has_one_size = capabilities is not None
    cards = {
        name: card.memory for name, card in CARDS.items() if capabilities is None or card.capability in capabilities
    }
    places = {THIS_MACHINE: Host().total_memory_bytes()} if settings.device != "cuda" else cards
    found = []
    for name, memory in places.items():

        def planned(slots: int, short_tokens: int = 0, memory: int = memory) -> MemoryPlan:
            chosen = settings.model_copy(update={"slots": slots, "short_tokens": short_tokens})
            return memory_plan(checkpoint, chosen, weights, int(numbers.kv.itemsize), memory)

        plan, most = planned(settings.slots), _largest(planned)
        token_bytes = plan.kv // kv_tokens(settings.model_copy(update={"short_tokens": 0}), checkpoint.text)
        tokens = max(0, plan.available - (plan.total - plan.kv)) // token_bytes
        typical = most if has_one_size else max(most, _largest(partial(planned, short_tokens=TYPICAL_TOKENS)))
        found.append(Fit(name, plan, tokens, most, typical))
    return found


def _largest(planned: Callable[[int], MemoryPlan]) -> int:
    """The most slots, up to the settings' limit, whose plan fits; 0 when not even one does."""
    low, high = 0, 1024
    while low < high:
        middle = (low + high + 1) // 2
        plan = planned(middle)
        low, high = (middle, high) if plan.total <= plan.available else (low, middle - 1)
    return low
