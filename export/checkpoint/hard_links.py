"""Lets a graph use the checkpoint's own files as its weights, where they hold what it needs: nothing is copied."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path

import onnx_ir as ir

from export.checkpoint.stored_tensors import StoredTensor
from export.checkpoint.weights import Weights

_LEAST_SHARE = 0.5
"""Of a file's bytes, so many must be of use for the file to be taken into a build whole."""


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
    tensors = {name: tensor for name, tensor in weights.stored().items() if weights.is_as_stored(name)}
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
