"""Rounded weights for an engine's graph: from the codes that lie in the build, written beside the graph for a while."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from export.graph.layers import SIGNED
from export.quantize.blockwise import signed_nibbles

_LARGE_BYTES = 1 << 16
"""Smaller weights stay in the graph's own file."""


def data_of(graph: Path) -> Path:
    """Where the weights of a graph lie that no other graph of the build has."""
    return graph.with_suffix(".data")


def share_codes(model: ir.Model, written: Mapping[str, ir.TensorProtocol]) -> None:
    """Makes 4-bit weights of the codes and scales that are `written` already: finding them anew takes minutes."""
    end = SIGNED[4]
    for name, value in model.graph.initializers.items():
        own = name.removesuffix(end)
        if name.endswith(end) and own in written:
            value.const_value = _signed(written[own], value.const_value, name)
        own = name.replace(f"{end}.scales", ".scales")
        if name.endswith(f"{end}.scales") and own in written:
            value.const_value = written[own]


def put_aside(model: ir.Model, graph: Path) -> None:
    """Writes the large weights that lie in no file yet beside where the graph is going to be, one at a time."""
    waiting = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > _LARGE_BYTES
    ]
    if not waiting:
        return
    path = data_of(graph)
    with path.open("wb") as file:
        for value in waiting:
            tensor = value.const_value
            assert tensor is not None
            begin = file.tell()
            file.write(tensor.tobytes())
            value.const_value = ir.ExternalTensor(
                path.name,
                begin,
                file.tell() - begin,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=str(value.name),
                base_dir=path.parent,
            )


def _signed(codes: ir.TensorProtocol, like: ir.TensorProtocol | None, name: str) -> ir.LazyTensor:
    assert like is not None
    shape = ir.Shape(like.shape.numpy())
    return ir.LazyTensor(
        lambda: ir.Tensor(signed_nibbles(codes.numpy()), name=name), ir.DataType.INT4, shape, name=name
    )
