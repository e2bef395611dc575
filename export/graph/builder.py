"""Builds an ONNX graph from named nodes, constants and initializers.

Names follow one grammar: `layers.3.attn.q` is the value, and the node that makes it carries the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

from export.checkpoint.weights import Weights

OPSET = 23
"""The first opset with RMSNormalization and RotaryEmbedding."""
STANDARD_OPSET = 24
"""The first with TensorScatter, and with an Attention that knows how much of a buffer is filled."""
CONTRIB = "com.microsoft"
PARTS = "parts"
"""Where an initializer's `meta` keeps what it was joined of: names of tensors, and how many of its rows each takes."""
CONSTANT = "constant."
"""What the names of initializers begin with that are no weights; they are numbered in each graph by itself."""


class OnnxGraphBuilder:
    """Collects one graph's nodes and initializers; one that `is_standard` has no operator of ONNX Runtime's own."""

    def __init__(self, weights: Weights, is_standard: bool = False) -> None:
        self.weights = weights
        self.is_standard = is_standard
        self._tape = tape.Tape()
        self._constants: dict[bytes, ir.Value] = {}
        self._initialized: set[str] = set()

    def op(
        self, kind: str, inputs: Sequence[ir.Value | None], name: str, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """One node with one output, both called `name`."""
        value = self._tape.op(kind, inputs, attributes or None, domain=domain, name=name)
        value.name = name
        return value

    def op_many(
        self, kind: str, inputs: Sequence[ir.Value | None], names: Sequence[str], domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """One node, named after its first output, with an output for each name; an empty name is an unused output."""
        outputs = [ir.Value(name=name) for name in names]
        return self._tape.op_multi_out(kind, inputs, attributes or None, outputs=outputs, domain=domain, name=names[0])

    def constant(self, value: Any, dtype: type[np.generic]) -> ir.Value:
        """A small initializer, shared by every use of the same value."""
        array = np.asarray(value, dtype)
        key = array.dtype.str.encode() + repr(array.shape).encode() + array.tobytes()
        if key not in self._constants:
            name = f"{CONSTANT}{len(self._constants)}"
            self._constants[key] = self._tape.initializer(ir.Tensor(array, name=name), name=name)
        return self._constants[key]

    def initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer of the tensor's name; a lazy one is worked out while it is written."""
        name = str(tensor.name)
        assert name not in self._initialized, f"two initializers called {name}: one would be written over the other"
        self._initialized.add(name)
        return self._tape.initializer(tensor, name=name)

    def model(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The finished model; opsets are fixed here."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": STANDARD_OPSET} if self.is_standard else {"": OPSET, CONTRIB: 1},
            name=name,
        )
        return ir.Model(graph, ir_version=11, producer_name="glm-triton")


def graph_input(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """A graph input; a word in `shape` is a size known at run time."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def declare(value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """Gives a value the name, type and shape it has as a graph output."""
    value.name = name
    value.type = ir.TensorType(dtype)
    value.shape = ir.Shape(shape)
    return value
