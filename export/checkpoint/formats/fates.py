"""What becomes of a published checkpoint's tensors in a build: codes that stay, or are rounded anew, and numbers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from export.checkpoint.formats.published import PublishedTensor, PublishedWeights
from export.checkpoint.weights import EMBEDDING, Weights
from export.precision import Numbers

KEPT = "as they are"
_PLAIN = "not quantised"
_GENTLE = ("model.visual.", "lm_head.")
_MB = 1e6


@dataclass(frozen=True)
class Fate:
    """Tensors of one scheme, what they take in the checkpoint, and what becomes of them."""

    format: str
    scheme: str
    tensors: int
    stored_bytes: int
    fate: str

    @property
    def sentence(self) -> str:
        """For whoever builds."""
        return f"{self.format}: {self.tensors} tensors ({self.scheme}, {self.stored_bytes / _MB:,.1f} MB): {self.fate}."


def published_bits(weights: Weights) -> int | None:
    """The narrowest codes that a checkpoint's linear layers are published in; None where all are numbers."""
    if not isinstance(weights, PublishedWeights):
        return None
    layers = [tensor.bits for name, tensor in weights.coded.items() if name != EMBEDDING]
    return min(layers, default=None)


def notes_of(weights: Weights) -> tuple[str, ...]:
    """What of a checkpoint's format is left out, a sentence each."""
    return weights.notes if isinstance(weights, PublishedWeights) else ()


def format_of(weights: Weights, numbers: Numbers, used: Weights) -> str:
    """A checkpoint's format, and whether a build keeps its codes; empty where it has none. See `fates_of`."""
    if not isinstance(weights, PublishedWeights) or not weights.coded:
        return ""
    kept = [fate for fate in fates_of(weights, numbers, used) if fate.fate == KEPT]
    return f"{weights.format}, {'codes as published' if kept else 'rounded anew'}"


def fates_of(weights: Weights, numbers: Numbers, used: Weights) -> list[Fate]:
    """One for each scheme and what becomes of it, the largest first; empty for a checkpoint of numbers. `used` are the
    weights as the build takes them, adapters merged in: what these change keeps no codes."""
    if not isinstance(weights, PublishedWeights) or not weights.coded:
        return []
    sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, stored in weights.described().items():
        tensor = weights.tensors.get(name)
        if tensor is not None and tensor.bits:
            sizes[tensor.scheme, _fate(name, tensor, numbers, used)].append(stored.length)
        elif tensor is not None or (stored.dtype is not None and not weights.is_part(name)):
            sizes[_PLAIN, _plain_fate(numbers)].append(stored.length)
    found = [Fate(weights.format, scheme, len(held), sum(held), fate) for (scheme, fate), held in sizes.items()]
    return sorted(found, key=lambda fate: -fate.stored_bytes)


def _fate(name: str, tensor: PublishedTensor, numbers: Numbers, used: Weights) -> str:
    if name == EMBEDDING:
        return "a table of numbers in fp16, as rows of it are looked up"
    packed = used.packed(name, (tensor.shape[0], tensor.shape[1]))
    if packed is not None and packed.bits in numbers.kept_bits:
        return KEPT
    if numbers.bits is None and not numbers.kept_bits:
        return f"as numbers in {numbers.real.name.lower()}"
    bits = 8 if name.startswith(_GENTLE) or numbers.bits is None else numbers.bits
    why = tensor.why or ("an adapter changes them" if packed is None else "")
    return f"rounded anew to {bits} bits" + (f", because {why}" if why else "")


def _plain_fate(numbers: Numbers) -> str:
    if numbers.bits is None:
        return f"as numbers in {numbers.real.name.lower()}, tables in their own type"
    gentle = ", head and image encoder to 8" if numbers.bits < 8 else ""
    return f"linear layers rounded to {numbers.bits} bits{gentle}"
