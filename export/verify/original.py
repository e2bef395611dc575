"""What a build was made of, opened again to hold it against: a checkpoint, and the adapters merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.checkpoint.formats.opened import open_weights
from export.checkpoint.hub import Source
from export.checkpoint.lora.adapter import Adapter
from export.checkpoint.lora.merged import MergedWeights
from export.checkpoint.weights import Weights
from glmserve.model.config import Checkpoint


@dataclass(frozen=True)
class Original:
    """A checkpoint's folder, its adapters in their order, and its weights with these merged in."""

    folder: Path
    weights: Weights
    adapters: tuple[Adapter, ...] = ()

    @staticmethod
    def open(folder: Path, adapters: Sequence[Source] = ()) -> Original:
        """Reads headers only; raises what `Adapter.open` and `open_weights` raise."""
        weights = open_weights(folder)
        if not adapters:
            return Original(folder, weights)
        tied = Checkpoint.read(folder).text.tied_head
        opened = tuple(Adapter.open(adapter.folder, adapter.name, weights, tied) for adapter in adapters)
        return Original(folder, MergedWeights.of(weights, opened), opened)
