"""Lets a graph use the checkpoint's own files as its weights, where they hold what it needs: nothing is copied."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from export.weights import STORED_TYPES, Weights
from glmserve.errors import BadArtifact

_LEAST_SHARE = 0.5
"""Of a file's bytes, so many must be of use for the file to be taken into a build whole."""


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie in its file."""

    file: str
    offset: int
    length: int
    dtype: ir.DataType | None
    shape: tuple[int, ...]

    def holds(self, value: ir.Value) -> bool:
        """Whether these are the initializer's very bytes, aligned to its elements as every reader may expect."""
        if self.dtype is None or self.dtype != value.dtype or value.shape is None:
            return False
        return self.shape == tuple(value.shape) and self.offset % self.dtype.itemsize == 0


def link_weights(model: ir.Model, weights: Weights, folder: Path) -> list[Path]:
    """Points the model's initializers at tensors of the checkpoint that are stored as the model wants them.

    The files that hold them appear in `folder` under their own names: as hard links, which take no room, or as copies
    where the file system does not link to them. Returns the checkpoint's files that are linked so.
    """
    places = {name: place for path in weights.files for name, place in places_in(path).items()}
    used: dict[str, list[ir.Value]] = defaultdict(list)
    for name, value in model.graph.initializers.items():
        if name in places and places[name].holds(value):
            used[places[name].file].append(value)
    linked = []
    for path in weights.files:
        values = used[path.name]
        if sum(places[str(value.name)].length for value in values) < _LEAST_SHARE * path.stat().st_size:
            continue
        _link(path, folder / path.name)
        linked.append(path)
        for value in values:
            _refer(value, places[str(value.name)], folder)
    return linked


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, one without links, or a file of somebody else's
        shutil.copyfile(source, target)


def _refer(value: ir.Value, place: Place, folder: Path) -> None:
    assert place.dtype is not None
    value.const_value = ir.ExternalTensor(
        place.file,
        place.offset,
        place.length,
        place.dtype,
        shape=ir.Shape(place.shape),
        name=str(value.name),
        base_dir=folder,
    )


def places_in(path: Path) -> dict[str, Place]:
    """Every tensor of a safetensors file: eight bytes of header length, the header in JSON, then the tensors' bytes.

    Raises BadArtifact when the header cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if length <= path.stat().st_size else b"")
        header.pop("__metadata__", None)
        return {
            name: Place(
                path.name,
                8 + length + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
                STORED_TYPES.get(entry["dtype"]),
                tuple(entry["shape"]),
            )
            for name, entry in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadArtifact(f"{path.name} is truncated or not a safetensors file.") from None
