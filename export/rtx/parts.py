"""Takes the decoder apart into engines that can be built in the memory there is, and says what each will take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from export.graph.decoder import Part
from export.rtx.order import EngineOrder
from glmserve.errors import DoesNotFit

_BASE_BYTES = 600_000_000
"""What a building process holds beside its weights: TensorRT itself, and the kernels that it writes."""
_COPIES = 3.2
"""How often it holds the weights at its peak, measured at the real widths; see docs/tensorrt.md."""
_PLAN_BYTES = 8_000_000
"""Kernels in a plan, beside its weights."""
_MB = 1e6

WeightBytes = Callable[[Part], int]
"""The bytes of a part's weights."""


def peak_bytes(weights: int) -> int:
    """Resident bytes at the peak of the process that builds an engine with so many bytes of weights."""
    return _BASE_BYTES + int(_COPIES * weights)


def plan_bytes(weights: int) -> int:
    """About how large that engine's plan is."""
    return _PLAN_BYTES + weights


def parts_of(layers: int, weigh: WeightBytes, order: EngineOrder) -> list[Part]:
    """The decoder's parts in order, as few as fit the memory: the whole of it where that does.

    Raises DoesNotFit when a single layer, the embedding or the head alone does not.
    """
    units = [Part(0, 0, embeds=True, draws=False)]
    units += [Part(index, index + 1, embeds=False, draws=False) for index in range(layers)]
    units.append(Part(layers, layers, embeds=False, draws=True))
    room = (order.memory_bytes - _BASE_BYTES) / _COPIES
    parts, held = list[Part](), 0
    for unit in units:
        size = weigh(unit)
        if size > room:
            needed = peak_bytes(size) / _MB
            raise DoesNotFit(
                f"Building an engine of {_name(unit)} alone takes {needed:,.0f} MB, and --build-memory is "
                f"{order.memory_bytes / _MB:,.0f}: raise it, or choose a --precision of fewer bits."
            )
        if parts and held + size <= room:
            parts[-1] = _joined(parts[-1], unit)
            held += size
        else:
            parts.append(unit)
            held = size
    assert all(before.last == after.first for before, after in pairwise(parts))
    return parts


def _joined(part: Part, unit: Part) -> Part:
    return Part(part.first, unit.last, part.embeds, unit.draws)


def title_of(part: Part) -> str:
    """A part in words: `embedding, layers 0 to 3`."""
    layers = f"layers {part.first} to {part.last - 1}" if part.first < part.last else ""
    names = ["embedding" if part.embeds else "", layers, "head and sampler" if part.draws else ""]
    return ", ".join(name for name in names if name)


def _name(unit: Part) -> str:
    return "the embedding" if unit.embeds else "the head" if unit.draws else f"layer {unit.first}"
