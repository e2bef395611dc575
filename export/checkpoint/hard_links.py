"""Lets a graph use the checkpoint's own files as its weights, where they hold what it needs: nothing is copied."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx_ir as ir

from export.checkpoint.weights import STORED_TYPES, Weights
from export.errors import BadShard
from glmserve.build.safetensors_header import METADATA, read_header

_LEAST_SHARE = 0.5
"""Of a file's bytes, so many must be of use for the file to be taken into a build whole."""


@dataclass(frozen=True)
class StoredTensor:
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
    where the file system does not link to them; one that is there is left alone. Returns the checkpoint's files that
    are linked so.
    """
    found = linkable(model, weights)
    for path, values in found.items():
        if not (folder / path.name).exists():
            _link(path, folder / path.name)
        for value, tensor in values:
            refer(value, tensor, folder)
    return list(found)


def linkable(model: ir.Model, weights: Weights) -> dict[Path, list[tuple[ir.Value, StoredTensor]]]:
    """The checkpoint's files that are worth taking into a build whole, and the initializers that each holds."""
    tensors = {
        name: tensor
        for path in weights.files
        for name, tensor in stored_tensors_in(path).items()
        if weights.shards.get(name) == path.name  # another file may hold a tensor of that name, which nobody means
        and weights.is_as_stored(name)
    }
    used: dict[str, list[ir.Value]] = defaultdict(list)
    for name, value in model.graph.initializers.items():
        if name in tensors and tensors[name].holds(value):
            used[tensors[name].file].append(value)
    found = {}
    for path in weights.files:
        values = [(value, tensors[str(value.name)]) for value in used[path.name]]
        if sum(tensor.length for _, tensor in values) >= _LEAST_SHARE * path.stat().st_size:
            found[path] = values
    return found


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, one without links, or a file of somebody else's
        partial = target.with_name(f"{target.name}.copying")
        shutil.copyfile(source, partial)
        partial.rename(target)


def refer(value: ir.Value, tensor: StoredTensor, folder: Path) -> None:
    """Lets an initializer be the bytes at a place of a file in `folder`."""
    assert tensor.dtype is not None
    value.const_value = ir.ExternalTensor(
        tensor.file,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=str(value.name),
        base_dir=folder,
    )


def stored_tensors_in(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file; raises BadShard when its header cannot be read or contradicts itself."""
    try:
        begin, header = read_header(path)
        header.pop(METADATA, None)
        tensors = {
            name: StoredTensor(
                path.name,
                begin + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
                STORED_TYPES.get(entry["dtype"]),
                tuple(entry["shape"]),
            )
            for name, entry in header.items()
        }
        _check_layout(path, begin, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadShard(f"{path.name} is truncated or not a safetensors file.") from None
    return tensors


def _check_layout(path: Path, begin: int, tensors: dict[str, StoredTensor]) -> None:
    """From `begin` on tensors lie one right behind the other, each as long as its type and shape make it."""
    end = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].length)):
        is_as_long = tensor.dtype is None or tensor.length == prod(tensor.shape) * tensor.dtype.itemsize
        if tensor.offset != end or not is_as_long:
            raise BadShard(
                f"{path.name} is damaged: its header puts tensor {name} at {tensor.offset} with {tensor.length} bytes, "
                f"which does not fit its type and shape {list(tensor.shape)}, or what stands before it."
            )
        end += tensor.length
