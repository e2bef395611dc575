"""Writes the graphs that other runtimes than ONNX Runtime parse, beside a build's own and on the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir

from export.graph.builder import CONSTANT, PARTS


def standard_of(graph: Path) -> Path:
    """Where such a graph lies, beside the one that it shares the weights of."""
    return graph.with_suffix(".standard.onnx")


def weights_in_files(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The weights of a written model that lie in files beside it, by name; of those that were joined, each part."""
    found: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor) and not name.startswith(CONSTANT):
            found |= {str(name): value.const_value, **_parts(value.const_value, value.meta.get(PARTS, ()))}
    return found


def _parts(whole: ir.ExternalTensor, parts: Iterable[tuple[str, int]]) -> dict[str, ir.TensorProtocol]:
    """Stretches of a matrix's rows, one behind the other, as tensors of their own."""
    assert whole.offset is not None and whole.length is not None
    found: dict[str, ir.TensorProtocol] = {}
    begin, sizes = whole.offset, [int(size) for size in whole.shape.numpy()]
    for name, rows in parts:
        length = rows * whole.length // sizes[0]
        shape = ir.Shape([rows, *sizes[1:]])
        found[name] = ir.ExternalTensor(
            whole.location, begin, length, whole.dtype, shape=shape, name=name, base_dir=whole.base_dir
        )
        begin += length
    return found


def write_standard(model: ir.Model, written: Mapping[str, ir.TensorProtocol], graph: Path) -> None:
    """Writes `model` beside `graph`, where the weights `written` with the same names already are."""
    share(model, written)
    ir.save(model, standard_of(graph))


def share(model: ir.Model, written: Mapping[str, ir.TensorProtocol]) -> None:
    """Lets the model's weights be those that are written already: of the same names, and not rounded otherwise."""
    for name, value in model.graph.initializers.items():
        found, own = written.get(name), value.const_value
        if found is not None and own is not None and (found.dtype, found.shape) == (own.dtype, own.shape):
            value.const_value = found
