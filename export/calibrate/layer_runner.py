"""Runs one layer of the decoder in fp32, weights given call by call, and shows what its linear layers are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from export.checkpoint.weights import Weights
from export.graph.decoder import Part, decoder_graph
from export.precision import FP32
from glmserve.build.rtx_engines import NEXT_RESIDUAL, RESIDUAL
from glmserve.contract import DecoderGraph, RowGroup
from glmserve.model.config import Checkpoint, TextModel
from glmserve.system.cpu_count import cores

_PRODUCT = "FusedMatMul"


@dataclass(frozen=True)
class Linear:
    """A layer's linear layer: its weight's name and shape [out, in], and the value of the graph that it is given."""

    weight: str
    shape: tuple[int, int]
    given: str


class LayerRunner:
    """One layer: `weights` of it f32 by name, read once and held until the runner is dropped."""

    def __init__(self, checkpoint: Checkpoint, weights: Weights, index: int) -> None:
        self._shape, self._index = checkpoint.text, index
        model = decoder_graph(checkpoint, weights, FP32, part=Part(index, index + 1, embeds=False, draws=False))
        graph = model.graph
        self.weights: dict[str, np.ndarray] = {}
        for name, value in list(graph.initializers.items()):
            if isinstance(value.const_value, ir.LazyTensor):
                self.weights[name] = np.asarray(value.const_value.numpy(), np.float32)
                _becomes_input(graph, value)
        self.linears = [
            Linear(str(weight.name), self._shape_of(str(weight.name)), str(given.name))
            for given, weight in (node.inputs for node in graph if node.op_type == _PRODUCT)
            if given is not None and weight is not None
        ]
        values = {value.name: value for node in graph for value in node.outputs}
        shown = dict.fromkeys(linear.given for linear in self.linears)
        graph.outputs[1:] = []  # KV
        for name in shown:
            values[name].type = ir.TensorType(ir.DataType.FLOAT)
            graph.outputs.append(values[name])
        self._names = [NEXT_RESIDUAL, *shown]
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores()
        options.log_severity_level = 3
        content: bytes = ir.to_proto(model).SerializeToString()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(
        self, state: np.ndarray, positions: np.ndarray, other: Mapping[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The state f32 [tokens, hidden] after the layer, from the one before it and positions i64 [3, tokens], and
        what each linear layer is given f32 [tokens, in]; `other` weights take the place of the layer's own."""
        tokens = len(state)
        feeds: dict[str, np.ndarray] = {
            RESIDUAL: state[None],
            DecoderGraph.POSITION_IDS: positions,
            DecoderGraph.PLACES: 1 + np.arange(tokens),
            **_group(self._shape, self._index, DecoderGraph.DECODED, 1),  # the stray row
            **_group(self._shape, self._index, DecoderGraph.CHUNK, tokens),
            **self.weights,
            **(other or {}),
        }
        if self._index == self._shape.layers - 1:
            feeds[DecoderGraph.LOGITS_INDEX] = np.arange(tokens)
        after, *given = self._session.run(self._names, feeds)
        return after[0], {name: value[0] for name, value in zip(self._names[1:], given, strict=True)}

    def _shape_of(self, name: str) -> tuple[int, int]:
        out, inputs = self.weights[name].shape
        return out, inputs


def _becomes_input(graph: ir.Graph, value: ir.Value) -> None:
    """Lets a weight be given with each call: none is copied into the session."""
    del graph.initializers[str(value.name)]
    value.const_value = None
    graph.inputs.append(value)


def _group(text: TextModel, layer: int, names: RowGroup, tokens: int) -> dict[str, np.ndarray]:
    """One fresh row that is fed the first tokens, and its room."""
    room = np.zeros((1, text.kv_heads, tokens, text.head_dim), np.float32)
    return {
        names.index: np.arange(tokens)[None],
        names.seqlens_k: np.array([tokens - 1], np.int32),
        names.total_length: np.array(tokens, np.int32),
        **dict.fromkeys(names.past(layer), room),
    }
