"""The linear layers of a safetensors checkpoint whose tensors stand for one weight together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.checkpoint.stored_tensors import StoredTensor
from export.errors import BadShard


@dataclass(frozen=True)
class LayerTensors:
    """The tensors of the layer called `name`, by what follows its name: `weight_packed`, `scales` …"""

    name: str
    folder: Path
    tensors: Mapping[str, StoredTensor]

    @property
    def weight(self) -> str:
        """What an unquantised checkpoint calls the layer's weight."""
        return f"{self.name}.weight"

    def __contains__(self, part: object) -> bool:
        return part in self.tensors

    def shape(self, part: str) -> tuple[int, ...]:
        """Raises BadShard naming the layer where it lacks the part."""
        return self._part(part).shape

    def mapped(self, part: str) -> np.ndarray:
        """A part as it is stored, mapped and not read; raises as `shape` does."""
        return self._part(part).mapped(self.folder)

    def file(self, part: str) -> str:
        return self._part(part).file

    @property
    def stored_bytes(self) -> int:
        """What all its parts but a bias take."""
        return sum(tensor.length for part, tensor in self.tensors.items() if part != "bias")

    def check(self, part: str, shape: tuple[int, ...]) -> None:
        """Raises BadShard unless a part has this shape."""
        if self.shape(part) != shape:
            raise BadShard(f"{self.name}.{part} is {list(self.shape(part))}, its layer asks for {list(shape)}.")

    def _part(self, part: str) -> StoredTensor:
        if part not in self.tensors:
            raise BadShard(f"The layer {self.name} lacks its tensor {self.name}.{part}.")
        return self.tensors[part]


def layers_in(stored: Mapping[str, StoredTensor], folder: Path, marks: Callable[[str], bool]) -> Iterator[LayerTensors]:
    """Every layer of which the name of some tensor `marks` that it is quantised."""
    by_layer: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored.items():
        layer, _, part = name.rpartition(".")
        by_layer.setdefault(layer, {})[part] = tensor
    for layer, tensors in by_layer.items():
        if any(marks(part) for part in tensors):
            yield LayerTensors(layer, folder, tensors)
