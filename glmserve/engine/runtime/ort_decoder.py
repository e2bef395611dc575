"""The decoder and the image encoder on ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS, DecoderGraph, RowGroup
from glmserve.engine.runtime.attention_groups import Group, groups, padded_step
from glmserve.engine.runtime.constant_arrays import numbered, zeros
from glmserve.engine.runtime.decoder import Pace, Sampled, Step
from glmserve.engine.runtime.device import Device, Host, multiply_bytes_exactly
from glmserve.engine.runtime.io_binding import Binding
from glmserve.engine.runtime.kv_cache import ELEMENT_TYPES, KvCache, KvShape
from glmserve.engine.runtime.pace import measured_pace
from glmserve.engine.runtime.sampling import GREEDY, SamplerInputs, filled, sampler_inputs
from glmserve.engine.vision.stop import Stop
from glmserve.errors import BadArtifact
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.model.config import Checkpoint, TextModel
from glmserve.model.position_embedding import VisionArrays

_log = logging.getLogger(__name__)
_MOST_GRAPHS = 64
"""Captured at most, since each holds memory for as long as the decoder lives; other steps are launched node by node."""
_UNCAPTURED = -1
"""onnxruntime's number for a run that is not to be captured."""
_ONCE_ON_CUDA = {"session.use_device_allocator_for_initializers": "1"}
"""Weights that onnxruntime lays out anew for its kernels would keep the memory of their first layout without this."""
_ROUNDED_ON_CUDA = {"ep.cuda.fpa_intb_gemm": "1"}
"""Multiplies by rounded weights as they are. Without it a step of more than a few tokens unpacks them all."""
_TILE = 64
"""Inputs of a layer that those kernels take at a time; they run no layer of any other number."""


def open_session(
    graph: Path,
    device: Device,
    threads: int,
    captures_graphs: bool = False,
    content: bytes | None = None,
    profile: Path | None = None,
    entries: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """A session on a graph file, or on `content` with the weights that lie beside that file; with `profile`, every
    node's time goes into a file whose name begins so. `entries` are more of onnxruntime's session entries.

    Threads do not spin while idle, since server, stubs and gateway share the cores. Raises BadArtifact.
    """
    options = ort.SessionOptions()
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    multiply_bytes_exactly(options)
    for entry, value in {**(_ONCE_ON_CUDA if device.name == "cuda" else {}), **(entries or {})}.items():
        options.add_session_config_entry(entry, value)
    if not graph.is_file():
        raise BadArtifact(f"The build lacks {graph.name}.")
    if content is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    try:
        return ort.InferenceSession(content or str(graph), options, providers=device.providers(captures_graphs))
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise BadArtifact(f"ONNX Runtime cannot load {graph.name}.") from error


class OrtDecoder:
    """A `DecoderSession`; with `content`, a graph that also gives its logits, `logits` f32 [N, vocabulary] holds them.

    `buckets` are the numbers of rows that a decode step is padded to; empty where any number runs as it is. On CUDA
    each bucket is captured as a CUDA graph, and once more for each size of the sampler's extras. The first `short_rows`
    rows hold `short_tokens` tokens, the others `context`; where both decode, each bucket of the one goes with each of
    the other.
    """

    def __init__(
        self,
        graph: Path,
        checkpoint: Checkpoint,
        rows: int,
        context: int,
        threads: int = 1,
        device: Device | None = None,
        buckets: tuple[int, ...] = (),
        content: bytes | None = None,
        profile: Path | None = None,
        short_rows: int = 0,
        short_tokens: int = 0,
    ) -> None:
        text = checkpoint.text
        self.rows, self.context, self.vocabulary = rows, context, text.vocabulary
        self.short_rows, self.short_tokens = short_rows, short_tokens
        self.candidates = min(SAMPLER_CANDIDATES, text.vocabulary)
        self.logits: np.ndarray | None = None
        self._device = device or Host()
        self._buckets = buckets
        self._captures = bool(buckets) and self._device.name == "cuda"
        entries = _ROUNDED_ON_CUDA if self._device.name == "cuda" and _is_tiled(text) else None
        try:
            self._session = open_session(graph, self._device, threads, self._captures, content, profile, entries)
        except BadArtifact:
            if not self._captures:
                raise
            _log.warning("this graph cannot be captured as CUDA graphs; decode steps are launched one node at a time")
            self._captures, self._buckets = False, ()
            self._session = open_session(graph, self._device, threads, False, content, profile, entries)
        self._keeps_logits = content is not None
        self._no_features = np.zeros((1, text.hidden), np.float32)
        kv_type = next(i.type for i in self._session.get_inputs() if i.name == DecoderGraph.DECODED.past(0)[0])
        shape = KvShape.of(text, rows, context, ELEMENT_TYPES[kv_type], short_rows, short_tokens)
        self._kv = KvCache(self._device, shape)
        self._bindings: dict[tuple[int, int, int, int | None], Binding] = {}
        self._graphs: dict[tuple[int, ...], int] = {}  # captured, by rows and sizes of extras
        self._uncapturable: set[int] = set()  # of these numbers
        self._reading = Binding(self._session, self._device)
        self._reading_rows = (-1, -1, -1, -1)

    @property
    def captures_graphs(self) -> bool:
        """Whether decode steps run as captured CUDA graphs, all that have run so far."""
        return self._captures and not self._uncapturable

    def run(self, step: Step) -> Sampled:
        self._device.use()
        count = len(step.drawn)
        if step.is_decode and self._buckets:
            step = self._padded(step)
        sampler, asked, graph, captured = step.sampler, len(step.sampler.logprob_rows), None, len(self._graphs)
        if step.is_decode and self._captures:
            sampler = filled(sampler)
            graph = self._graph(step, sampler)
        has_own = step.is_decode and (self._buckets or not step.beside)
        binding = self._decoding(step, graph) if has_own else self._mixed(step)
        self._put(binding, step, sampler, graph is not None)
        if graph is not None and len(self._graphs) > captured:
            self._capture(binding, graph, step.decoded)
        else:
            self._launch(binding, graph)
        if self._keeps_logits:
            self.logits = binding.read(DecoderGraph.LOGITS)[:count]
        return Sampled(
            binding.read(DecoderGraph.TOKEN)[:count, 0],
            binding.read(DecoderGraph.LOGPROB_IDS)[:asked] if asked else np.empty((0, 0), np.int64),
            binding.read(DecoderGraph.LOGPROB_VALUES)[:asked] if asked else np.empty((0, 0), np.float32),
        )

    def warm_up(self) -> Pace | None:
        """Runs a plain step in every bucket: graphs are captured, and the memory they take is taken, before the first
        request comes. onnxruntime keeps what it captures for the thread that ran it. A processor's pace is measured."""
        for first in sorted({0, self.short_rows}):
            for rows in sorted({min(rows, self._rows_like(first)) for rows in self._buckets}):
                sampler = sampler_inputs([GREEDY] * rows, self.candidates, self.vocabulary)
                step = Step.drawing(zeros(rows), np.zeros((3, rows), np.int64), numbered(rows), sampler)
                self.run(replace(step, lengths=np.zeros(rows, np.int32), first_decoded=first))
        return measured_pace(self) if self._device.name == "cpu" else None

    def move(self, source: int, target: int, length: int) -> None:
        self._kv.move(source, target, length)

    def end_profile(self) -> Path:
        """Ends the profile; the file that holds it, in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def poison(self) -> None:
        """Fills the KV rows with NaN, so that a test sees whether anything not written is read."""
        self._kv.poison()

    def _padded(self, step: Step) -> Step:
        """A decode step of whole buckets."""
        first, beside, room = step.first_decoded, step.first_row, self._kv.shape.room
        rows, rows_beside = self._bucket(first, step.decoded), self._bucket(beside, step.beside)
        return padded_step(step, rows, room(first), rows_beside, room(beside))

    def _bucket(self, first: int, count: int) -> int:
        """How many rows, from this one on, so many are padded to."""
        size = next(size for size in self._buckets if size >= count) if count else 0
        return min(size, self._rows_like(first))

    def _rows_like(self, first: int) -> int:
        """How many rows there are of the size of this one."""
        return self.short_rows if first < self.short_rows else self.rows - self.short_rows

    def _graph(self, step: Step, sampler: SamplerInputs) -> int | None:
        """The number of the captured graph for so many rows of a size and extras; None when there are enough others, or
        where it could not be captured."""
        sizes = step.first_decoded, step.decoded, step.beside, *sampler.extras
        if sizes not in self._graphs and len(self._graphs) < _MOST_GRAPHS:
            self._graphs[sizes] = 1 + len(self._graphs)
        number = self._graphs.get(sizes)
        return None if number in self._uncapturable else number

    def _launch(self, binding: Binding, graph: int | None) -> None:
        options = ort.RunOptions()
        if self._captures:
            options.add_run_config_entry("gpu_graph_id", str(graph or _UNCAPTURED))
        self._session.run_with_iobinding(binding.io, options)

    def _capture(self, binding: Binding, graph: int, rows: int) -> None:
        """Runs the first step of its sizes. If it cannot be captured, this one and those after it are launched node by
        node: what ran in part may run again, since it writes the same KV to the same places."""
        try:
            with self._device.capturing:
                self._launch(binding, graph)
        except Exception as error:  # onnxruntime raises its own unrelated classes
            _log.warning("steps of %d rows cannot be captured and are launched node by node: %s", rows, error)
            self._uncapturable.add(graph)
            self._launch(binding, None)

    def _decoding(self, step: Step, graph: int | None) -> Binding:
        """Decode steps have bindings of their own for each number of rows, and for each captured graph, whose addresses
        never change: it keeps them."""
        key = step.first_decoded, step.decoded, step.beside, graph
        if key not in self._bindings:
            self._bindings[key] = Binding(self._session, self._device)
            self._kv.bind(self._bindings[key].io, DecoderGraph.DECODED, step.first_decoded, step.decoded)
            self._kv.bind(self._bindings[key].io, DecoderGraph.CHUNK, step.first_row, step.beside)
        return self._bindings[key]

    def _mixed(self, step: Step) -> Binding:
        """The one binding of all steps that read more; its rows change, which costs little beside such a step."""
        if step.draft_row is None:
            rows = step.first_decoded, step.decoded, step.first_row, len(step.chunk_new)
        else:
            decoded = 0 if step.decoded == 1 else step.decoded
            rows = step.first_decoded, decoded, step.first_decoded + step.draft_row, 1
        if rows != self._reading_rows:
            self._kv.bind(self._reading.io, DecoderGraph.DECODED, *rows[:2])
            self._kv.bind(self._reading.io, DecoderGraph.CHUNK, *rows[2:])
            self._reading_rows = rows
        return self._reading

    def _put(self, binding: Binding, step: Step, sampler: SamplerInputs, is_captured: bool) -> None:
        """In a decode step's own binding only tokens, positions, lengths and what the sampler is given ever change, and
        with rows of two sizes where the latter stand among those that are padded."""
        decoded, chunk, places = groups(step)
        room, room_beside = self._kv.shape.room(step.first_decoded), self._kv.shape.room(step.first_row)
        listed = len(sampler.logprob_rows), 1 + min(MAX_LOGPROBS, self.vocabulary)
        binding.put(DecoderGraph.INPUT_IDS, step.input_ids)
        binding.put(DecoderGraph.POSITION_IDS, step.positions)
        self._put_group(binding, DecoderGraph.DECODED, decoded, room if is_captured else None)
        if binding.sampler is not sampler:
            self._put_sampler(binding, sampler)
            binding.receive(DecoderGraph.LOGPROB_VALUES, listed, np.float32)
            binding.receive(DecoderGraph.LOGPROB_IDS, listed, np.int64)
        if step.is_decode and binding.is_filled and not step.beside:
            return
        binding.lend(DecoderGraph.IMAGE_FEATURES, self._no_features if step.features is None else step.features)
        binding.put(DecoderGraph.IMAGE_SLOT, step.image_slot)
        self._put_group(binding, DecoderGraph.CHUNK, chunk, room_beside if is_captured and step.beside else None)
        binding.put(DecoderGraph.PLACES, places)
        binding.put(DecoderGraph.LOGITS_INDEX, step.drawn)
        binding.receive(DecoderGraph.TOKEN, (len(step.drawn), 1), np.int64)
        if self._keeps_logits:
            binding.receive(DecoderGraph.LOGITS, (len(step.drawn), self.vocabulary), np.float32)
        binding.is_filled = True

    def _put_group(self, binding: Binding, names: RowGroup, group: Group, total: int | None = None) -> None:
        """`total` stands for the group's own where a captured graph must not see it change."""
        binding.put(names.index, group.index)
        binding.put(names.seqlens_k, group.seqlens)
        binding.put(names.total_length, np.asarray(total or group.total, np.int32), on_host=True)

    def _put_sampler(self, binding: Binding, sampler: SamplerInputs) -> None:
        binding.sampler = sampler
        for name, array in sampler.by_input().items():
            binding.put(name, array)


def _is_tiled(text: TextModel) -> bool:
    """Whether every linear layer of the decoder has a number of inputs that is whole tiles."""
    return all(size % _TILE == 0 for size in (text.hidden, text.heads * text.head_dim, text.ffn))


class OrtVision:
    """The image encoder."""

    def __init__(self, graph: Path, threads: int = 1, device: Device | None = None) -> None:
        self._device = device or Host()
        self._session = open_session(graph, self._device, threads)

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B images of one grid; see `contract.VISION_INPUTS`. Raises what
        onnxruntime raises, also at the node after the one that runs when `stop` is set."""
        inputs = {IMAGE_PATCHES.name: patches, ROW_WEIGHTS.name: row_weights, COLUMN_WEIGHTS.name: column_weights}
        options = ort.RunOptions()
        if stop is not None:
            stop.when_set(lambda: setattr(options, "terminate", True))
        with self._device.capturing:
            return self._session.run([IMAGE_FEATURES.name], inputs, options)[0]  # type: ignore[no-any-return]

    def encode(self, arrays: VisionArrays) -> np.ndarray:
        """Features f32 [image tokens, hidden] of one image."""
        patches, rows, columns = arrays
        return self.run(patches[None], rows[None], columns[None])[0]  # type: ignore[no-any-return]
