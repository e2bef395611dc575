"""Writes the graphs that other runtimes than ONNX Runtime parse, beside a build's own and on the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from export.graph.builder import CONSTANT


def standard_of(graph: Path) -> Path:
    """Where such a graph lies, beside the one that it shares the weights of."""
    return graph.with_suffix(".standard.onnx")


def weights_in_files(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The weights of a written model that lie in files beside it, by name."""
    return {
        str(name): value.const_value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor) and not name.startswith(CONSTANT)
    }


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
