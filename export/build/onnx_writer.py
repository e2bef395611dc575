"""A graph on the disk: a file of nodes and small constants, and beside it one of the weights that lie nowhere yet."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from export.build.progress import Advance
from export.build.tensor_writer import Journal, offsets_of, write_tensors
from export.store.durable_io import sync

_INLINE_BYTES = 256
"""Tensors up to this size stay inside the graph's own file."""


def weights_file(graph: Path) -> Path:
    """The file of a graph's weights."""
    return graph.with_suffix(".data")


def unwritten(model: ir.Model) -> list[ir.Value]:
    """The initializers to be written beside the graph, in the order of the file."""
    return [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > _INLINE_BYTES
    ]


def tensors_of(values: list[ir.Value]) -> list[ir.TensorProtocol]:
    return [value.const_value for value in values if value.const_value is not None]


def refer_to_file(values: list[ir.Value], path: Path) -> None:
    """Lets initializers be what `write_tensors` puts, or will put, into the file at `path`."""
    tensors = tensors_of(values)
    for value, tensor, offset in zip(values, tensors, offsets_of(tensors), strict=False):
        value.const_value = ir.ExternalTensor(
            path.name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(value.name),
            base_dir=path.parent,
        )


def graph_bytes(model: ir.Model) -> bytes:
    """The content of the graph's own file, once every large initializer has its place."""
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def write_graph(model: ir.Model, path: Path, journal: Journal, advance: Advance) -> dict[Path, str]:
    """Writes both files; returns the SHA-256 of the weights' one, which needs no second reading."""
    values, known = unwritten(model), {}
    if values:
        weights = weights_file(path)
        known[weights] = write_tensors(tensors_of(values), weights, journal, advance)
        refer_to_file(values, weights)
    with path.open("wb") as file:
        file.write(graph_bytes(model))
        sync(file)
    return known
