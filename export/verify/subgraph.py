"""Runs parts of a build's graph, each with its own weights only, so that memory holds one part at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from glmserve.engine.runtime.device import multiply_bytes_exactly


class Subgraphs:
    """One graph of a build, run part by part on the CPU.

    The CPU has no bf16 attention, so what a graph computes in bf16 is computed in fp32 here, from the same weights.
    """

    def __init__(self, graph: Path, threads: int = 1) -> None:
        self._model = ir.load(graph)
        self._folder = graph.parent
        self._threads = threads

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Values of the graph in fp32, from any others that they depend on, which are given."""
        subgraph = ir.convenience.extract(self._model.graph, list(inputs), list(outputs))
        real = _real(subgraph)
        if real == ir.DataType.BFLOAT16:
            _compute_in_fp32(subgraph)
            real = ir.DataType.FLOAT
        feeds = {}
        for value in subgraph.inputs:
            array = inputs[str(value.name)]
            is_real = array.dtype == np.float32 and value.dtype in (None, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
            value.type = ir.TensorType(real if is_real else ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape([None] * array.ndim)
            feeds[str(value.name)] = array.astype(real.numpy()) if is_real else array
        for value in subgraph.outputs:
            value.type = value.type or ir.TensorType(real)
        found = self._session(subgraph).run([str(value.name) for value in subgraph.outputs], feeds)
        return [np.asarray(array, np.float32) for array in found]

    def makes(self, name: str) -> bool:
        """Whether a node of the graph gives a value of that name."""
        return any(output.name == name for node in self._model.graph for output in node.outputs)

    def input_dtype(self, name: str) -> np.dtype:
        """What `run` takes for an input of the whole graph: fp32 for any real type, else its own."""
        dtype = next(value.dtype for value in self._model.graph.inputs if value.name == name)
        assert dtype is not None
        return np.dtype(np.float32) if dtype.is_floating_point() else dtype.numpy()

    def table(self, name: str) -> np.ndarray:
        """A weight that is not rounded, as it is stored: mapped and not read."""
        tensor = self._model.graph.initializers[name].const_value
        assert isinstance(tensor, ir.ExternalTensor)
        # onnx_ir itself reads no file with several hard links, as a linked checkpoint's has
        file, shape = self._folder / tensor.location, tuple(tensor.shape.numpy())
        return np.memmap(file, tensor.dtype.numpy(), "r", tensor.offset or 0, shape)

    def _session(self, subgraph: ir.Graph) -> ort.InferenceSession:
        """Without the copies that make weights faster to use often."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        options.add_session_config_entry("session.disable_prepacking", "1")
        multiply_bytes_exactly(options)
        model = ir.Model(subgraph, ir_version=self._model.ir_version)
        content: bytes = ir.to_proto(model).SerializeToString()
        return ort.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )


def _real(subgraph: ir.Graph) -> ir.DataType:
    """What the subgraph's activations are kept in: the type of its weights, rounded ones and tables apart."""
    kinds = {value.dtype for value in subgraph.initializers.values()}
    for half in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        if half in kinds:
            return half
    return ir.DataType.FLOAT


def _compute_in_fp32(subgraph: ir.Graph) -> None:
    """Casts every bf16 weight before its use, and nothing else to bf16."""
    for value in list(subgraph.initializers.values()):
        if value.dtype != ir.DataType.BFLOAT16:
            continue
        uses = list(value.uses())
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{value.name}.fp32")
        cast.outputs[0].name = f"{value.name}.fp32"
        subgraph.insert_before(subgraph[0], cast)
        for user, index in uses:
            user.replace_input_with(index, cast.outputs[0])
    for node in subgraph:
        to = node.attributes.get("to")
        if node.op_type == "Cast" and to is not None and to.as_int() == int(ir.DataType.BFLOAT16):
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype == ir.DataType.BFLOAT16:
                output.type = ir.TensorType(ir.DataType.FLOAT)
