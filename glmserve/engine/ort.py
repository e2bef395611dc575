"""The decoder and the picture encoder on ONNX Runtime, KV rows bound in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from glmserve.checkpoint import Checkpoint
from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS, DecoderGraph
from glmserve.engine.session import Step
from glmserve.errors import BadArtifact
from glmserve.limits import SAMPLER_CANDIDATES
from glmserve.position_table import VisionArrays

_DEVICE = "cpu"


def open_session(graph: Path, threads: int) -> ort.InferenceSession:
    """A session on a graph file; threads do not spin while idle, since server, stubs and gateway share the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not graph.is_file():
        raise BadArtifact(f"The build lacks {graph.name}.")
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise BadArtifact(f"ONNX Runtime cannot load {graph.name}.") from error


class OrtDecoder:
    """A `DecoderSession` on the CPU provider; `keep_logits` makes `logits` f32 [B, vocabulary] readable after a run."""

    def __init__(
        self,
        graph: Path,
        checkpoint: Checkpoint,
        slots: int,
        context: int,
        threads: int = 1,
        keep_logits: bool = False,
    ) -> None:
        text = checkpoint.text
        self.slots, self.context = slots, context
        self.candidates = min(SAMPLER_CANDIDATES, text.vocabulary)
        self.logits: np.ndarray | None = None
        self._session = open_session(graph, threads)
        kv = next(i for i in self._session.get_inputs() if i.name == DecoderGraph.past(0)[0])
        self._kv_dtype = np.float16 if kv.type == "tensor(float16)" else np.float32
        self._keep_logits = keep_logits
        self._no_features = np.zeros((1, text.hidden), np.float32)
        # past and present are the same memory, so a step writes its KV in place
        shape = (slots, text.kv_heads, context, text.head_dim)
        self._cache = [np.zeros(shape, self._kv_dtype) for _ in range(2 * text.layers)]
        self._names = [
            pair
            for layer in range(text.layers)
            for pair in zip(DecoderGraph.past(layer), DecoderGraph.present(layer), strict=True)
        ]

    def run(self, step: Step) -> np.ndarray:
        rows, new = step.input_ids.shape
        after = step.lengths + new
        sampler = step.sampler
        inputs = {
            DecoderGraph.INPUT_IDS: step.input_ids,
            DecoderGraph.IMAGE_FEATURES: self._no_features if step.features is None else step.features,
            DecoderGraph.IMAGE_SLOT: step.image_slot,
            DecoderGraph.POSITION_IDS: step.positions,
            DecoderGraph.SEQLENS_K: (after - 1).astype(np.int32),
            DecoderGraph.TOTAL_LENGTH: np.asarray(after.max(), np.int32),
            DecoderGraph.LOGITS_INDEX: np.full((rows, 1), new - 1, np.int64),
            DecoderGraph.TEMPERATURE: sampler.temperature,
            DecoderGraph.TOP_K: sampler.top_k,
            DecoderGraph.TOP_P: sampler.top_p,
            DecoderGraph.UNIFORM: sampler.uniform,
        }
        binding = self._session.io_binding()
        bound = {name: np.ascontiguousarray(array) for name, array in inputs.items()}  # alive until the run is over
        for name, array in bound.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(DecoderGraph.TOKEN, _DEVICE)
        if self._keep_logits:
            binding.bind_output(DecoderGraph.LOGITS, _DEVICE)
        self._bind_rows(binding, step.first_row, rows)
        self._session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        if self._keep_logits:
            self.logits = outputs[1].numpy()
        return outputs[0].numpy()[:, 0]  # type: ignore[no-any-return]

    def move(self, source: int, target: int, length: int) -> None:
        for buffer in self._cache:
            buffer[target, :, :length] = buffer[source, :, :length]

    def fill_cache(self, value: float) -> None:
        """Overwrites every KV row, so that a test sees whether anything not written is read."""
        for buffer in self._cache:
            buffer.fill(value)

    def _bind_rows(self, binding: ort.IOBinding, first: int, rows: int) -> None:
        for buffer, (past, present) in zip(self._cache, self._names, strict=True):
            view = buffer[first : first + rows]
            binding.bind_input(past, _DEVICE, 0, self._kv_dtype, view.shape, view.ctypes.data)
            binding.bind_output(present, _DEVICE, 0, self._kv_dtype, view.shape, view.ctypes.data)


class OrtVision:
    """The picture encoder."""

    def __init__(self, graph: Path, threads: int = 1) -> None:
        self._session = open_session(graph, threads)

    def run(self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B pictures of one grid; see `contract.VISION_INPUTS`."""
        inputs = {IMAGE_PATCHES.name: patches, ROW_WEIGHTS.name: row_weights, COLUMN_WEIGHTS.name: column_weights}
        return self._session.run([IMAGE_FEATURES.name], inputs)[0]  # type: ignore[no-any-return]

    def encode(self, arrays: VisionArrays) -> np.ndarray:
        """Features f32 [image tokens, hidden] of one picture."""
        patches, rows, columns = arrays
        return self.run(patches[None], rows[None], columns[None])[0]  # type: ignore[no-any-return]
