"""The decoder and the picture encoder on ONNX Runtime: arrays bound once for each set of rows, and updated in place."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from glmserve.checkpoint import Checkpoint
from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS, DecoderGraph, RowGroup
from glmserve.engine.device import Device, Host, multiply_bytes_exactly
from glmserve.engine.kv import ELEMENT_TYPES, KvCache, KvShape
from glmserve.engine.sampling import GREEDY, SamplerInputs, padded, sampler_inputs
from glmserve.engine.session import Sampled, Step, numbered, zeros
from glmserve.errors import BadArtifact
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.position_table import VisionArrays

_log = logging.getLogger(__name__)
_SMALL_BYTES = 1 << 16
"""Up to this size, comparing an array with what a device holds is cheaper than copying it there again."""


def open_session(
    graph: Path,
    device: Device,
    threads: int,
    captures_graphs: bool = False,
    content: bytes | None = None,
    profile: Path | None = None,
) -> ort.InferenceSession:
    """A session on a graph file, or on `content` with the weights that lie beside that file; with `profile`, every
    node's time goes into a file whose name begins so.

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
    if not graph.is_file():
        raise BadArtifact(f"The build lacks {graph.name}.")
    if content is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    try:
        return ort.InferenceSession(content or str(graph), options, providers=device.providers(captures_graphs))
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise BadArtifact(f"ONNX Runtime cannot load {graph.name}.") from error


class _Binding:
    """The inputs and outputs of one set of rows; an array of the same shape as before is copied into its place.

    One that nobody may write to and that was put last is there already, and so is small content on another device.
    """

    def __init__(self, session: ort.InferenceSession, device: Device) -> None:
        self.io: ort.IOBinding = session.io_binding()
        self.sampler: SamplerInputs | None = None  # whose arrays were put last
        self.is_filled = False
        self._device = device.name, device.number
        self._put: dict[str, np.ndarray] = {}  # the newest of each input
        self._hosted: dict[str, np.ndarray] = {}  # alive as long as they are bound
        self._sent: dict[str, bytes] = {}  # what the small ones on another device hold
        self._values: dict[str, ort.OrtValue] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def put(self, name: str, array: np.ndarray, on_host: bool = False) -> None:
        """Sets an input to a copy; `on_host` keeps it in host memory, where the graph wants it on any device."""
        if self._put.get(name) is array and not array.flags.writeable:
            return
        self._put[name] = array
        hosted = self._hosted.get(name)
        if self._shapes.get(name) == array.shape:
            if hosted is not None:
                np.copyto(hosted, array)
            elif self._is_news(name, array):
                self._values[name].update_inplace(np.ascontiguousarray(array))
            return
        if on_host or self._device[0] == "cpu":
            self._hosted[name] = np.array(array, order="C")  # else a copy that onnxruntime makes would be bound
            value = ort.OrtValue.ortvalue_from_numpy(self._hosted[name])
        else:
            self._is_news(name, array)
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._device)
        self._bind(name, value, array.shape)

    def lend(self, name: str, array: np.ndarray) -> None:
        """Sets an input to an array that nobody changes any more: the processor reads it where it is."""
        if self._device[0] != "cpu":
            self.put(name, array)
        elif self._put.get(name) is not array:  # as in every step without a picture
            self._put[name] = array
            self._hosted[name] = np.ascontiguousarray(array)
            self._bind(name, ort.OrtValue.ortvalue_from_numpy(self._hosted[name]), array.shape)

    def receive(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Gives an output its place."""
        if self._shapes.get(name) != shape:
            self._values[name] = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, *self._device)
            self._shapes[name] = shape
            self.io.bind_ortvalue_output(name, self._values[name])

    def _bind(self, name: str, value: ort.OrtValue, shape: tuple[int, ...]) -> None:
        self._values[name], self._shapes[name] = value, shape
        self.io.bind_ortvalue_input(name, value)

    def _is_news(self, name: str, array: np.ndarray) -> bool:
        """Whether a device must be sent this: each copy is waited for, and in a step that decodes few inputs change."""
        if array.nbytes > _SMALL_BYTES:
            return True
        content = array.tobytes()
        if self._sent.get(name) == content:
            return False
        self._sent[name] = content
        return True

    def read(self, name: str) -> np.ndarray:
        """An output's content; on a device this waits for it."""
        return np.array(self._values[name].numpy())


class OrtDecoder:
    """A `DecoderSession`; with `content`, a graph that also gives its logits, `logits` f32 [N, vocabulary] holds them.

    `buckets` are the numbers of rows that a decode step is padded to; empty where any number runs as it is. On CUDA
    each bucket is captured as one CUDA graph.
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
    ) -> None:
        text = checkpoint.text
        self.rows, self.context, self.vocabulary = rows, context, text.vocabulary
        self.candidates = min(SAMPLER_CANDIDATES, text.vocabulary)
        self.logits: np.ndarray | None = None
        self._device = device or Host()
        self._buckets = buckets
        self._captures = bool(buckets) and self._device.name == "cuda"
        try:
            self._session = open_session(graph, self._device, threads, self._captures, content, profile)
        except BadArtifact:
            if not self._captures:
                raise
            _log.warning("this graph cannot be captured as CUDA graphs; decode steps are launched one node at a time")
            self._captures, self._buckets = False, ()
            self._session = open_session(graph, self._device, threads, False, content, profile)
        self._keeps_logits = content is not None
        self._no_features = np.zeros((1, text.hidden), np.float32)
        kv_type = next(i.type for i in self._session.get_inputs() if i.name == DecoderGraph.DECODED.past(0)[0])
        self._kv = KvCache(self._device, KvShape.of(text, rows, context, ELEMENT_TYPES[kv_type]))
        self._bindings: dict[tuple[int, bool], _Binding] = {}
        self._reading = _Binding(self._session, self._device)
        self._reading_rows = (-1, -1, -1)

    @property
    def captures_graphs(self) -> bool:
        """Whether decode steps run as captured CUDA graphs."""
        return self._captures

    def run(self, step: Step) -> Sampled:
        self._device.use()
        count = len(step.drawn)
        if step.is_decode and self._buckets:
            step = _padded(step, next(size for size in self._buckets if size >= count), self.context)
        is_plain = step.is_decode and not step.sampler.has_extras
        binding = self._decoding(step.decoded, is_plain) if step.is_decode else self._mixed(step)
        self._put(binding, step, is_plain)
        options = ort.RunOptions()
        if self._captures:
            options.add_run_config_entry("gpu_graph_id", str(step.decoded) if is_plain else "-1")
        self._session.run_with_iobinding(binding.io, options)
        if self._keeps_logits:
            self.logits = binding.read(DecoderGraph.LOGITS)[:count]
        return Sampled(
            binding.read(DecoderGraph.TOKEN)[:count, 0],
            binding.read(DecoderGraph.LOGPROB_IDS) if len(step.sampler.logprob_rows) else np.empty((0, 0), np.int64),
            binding.read(DecoderGraph.LOGPROB_VALUES)
            if len(step.sampler.logprob_rows)
            else np.empty((0, 0), np.float32),
        )

    def warm_up(self) -> None:
        """Runs a plain step in every bucket: graphs are captured, and the memory they take is taken, before the first
        request comes. onnxruntime keeps what it captures for the thread that ran it."""
        for rows in self._buckets:
            sampler = sampler_inputs([GREEDY] * rows, self.candidates, self.vocabulary)
            step = Step.drawing(zeros(rows), np.zeros((3, rows), np.int64), numbered(rows), sampler)
            self.run(replace(step, lengths=np.zeros(rows, np.int32)))

    def move(self, source: int, target: int, length: int) -> None:
        self._kv.move(source, target, length)

    def end_profile(self) -> Path:
        """Ends the profile; the file that holds it, in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def poison(self) -> None:
        """Fills the KV rows with NaN, so that a test sees whether anything not written is read."""
        self._kv.poison()

    def _decoding(self, rows: int, is_plain: bool) -> _Binding:
        """Plain decode steps have bindings of their own, whose addresses never change: a captured graph keeps them."""
        key = rows, is_plain
        if key not in self._bindings:
            self._bindings[key] = _Binding(self._session, self._device)
            self._kv.bind(self._bindings[key].io, DecoderGraph.DECODED, 0, rows)
            self._kv.bind(self._bindings[key].io, DecoderGraph.CHUNK, 0, 0)
        return self._bindings[key]

    def _mixed(self, step: Step) -> _Binding:
        """The one binding of all steps that read more; its rows change, which costs little beside such a step."""
        if step.draft_row is None:
            rows = step.decoded, step.first_row, len(step.chunk_new)
        else:
            rows = 0 if step.decoded == 1 else step.decoded, step.draft_row, 1
        if rows != self._reading_rows:
            self._kv.bind(self._reading.io, DecoderGraph.DECODED, 0, rows[0])
            self._kv.bind(self._reading.io, DecoderGraph.CHUNK, rows[1], rows[2])
            self._reading_rows = rows
        return self._reading

    def _put(self, binding: _Binding, step: Step, is_plain: bool) -> None:
        """In a plain step's own binding only tokens, positions, lengths and the sampler's settings ever change."""
        decoded, chunk, places = _groups(step)
        binding.put(DecoderGraph.INPUT_IDS, step.input_ids)
        binding.put(DecoderGraph.POSITION_IDS, step.positions)
        self._put_group(binding, DecoderGraph.DECODED, decoded, self.context if is_plain and self._captures else None)
        if binding.sampler is not step.sampler:
            self._put_sampler(binding, step.sampler)
        if is_plain and binding.is_filled:
            return
        binding.lend(DecoderGraph.IMAGE_FEATURES, self._no_features if step.features is None else step.features)
        binding.put(DecoderGraph.IMAGE_SLOT, step.image_slot)
        self._put_group(binding, DecoderGraph.CHUNK, chunk)
        binding.put(DecoderGraph.PLACES, places)
        binding.put(DecoderGraph.LOGITS_INDEX, step.drawn)
        rows, listed = len(step.drawn), (len(step.sampler.logprob_rows), 1 + min(MAX_LOGPROBS, self.vocabulary))
        binding.receive(DecoderGraph.TOKEN, (rows, 1), np.int64)
        binding.receive(DecoderGraph.LOGPROB_VALUES, listed, np.float32)
        binding.receive(DecoderGraph.LOGPROB_IDS, listed, np.int64)
        if self._keeps_logits:
            binding.receive(DecoderGraph.LOGITS, (rows, self.vocabulary), np.float32)
        binding.is_filled = True

    def _put_group(self, binding: _Binding, names: RowGroup, group: _Group, total: int | None = None) -> None:
        """`total` stands for the group's own where a captured graph must not see it change."""
        binding.put(names.index, group.index)
        binding.put(names.seqlens_k, group.seqlens)
        binding.put(names.total_length, np.asarray(total or group.total, np.int32), on_host=True)

    def _put_sampler(self, binding: _Binding, sampler: SamplerInputs) -> None:
        binding.sampler = sampler
        binding.put(DecoderGraph.TEMPERATURE, sampler.temperature)
        binding.put(DecoderGraph.TOP_K, sampler.top_k)
        binding.put(DecoderGraph.TOP_P, sampler.top_p)
        binding.put(DecoderGraph.MIN_P, sampler.min_p)
        binding.put(DecoderGraph.UNIFORM, sampler.uniform)
        binding.put(DecoderGraph.PENALTY_INDEX, sampler.penalty_index)
        binding.put(DecoderGraph.PENALTY, sampler.penalty)
        binding.put(DecoderGraph.MASK_ROWS, sampler.mask_rows)
        binding.put(DecoderGraph.MASK, sampler.mask)
        binding.put(DecoderGraph.LOGPROB_ROWS, sampler.logprob_rows)


@dataclass(frozen=True)
class _Group:
    """A `contract.RowGroup`'s values: `index` i64 [rows, width], `seqlens` i32 [rows]."""

    index: np.ndarray
    seqlens: np.ndarray
    total: int


def _stray() -> _Group:
    index, seqlens = np.zeros((1, 1), np.int64), np.zeros(1, np.int32)
    index.flags.writeable = seqlens.flags.writeable = False
    return _Group(index, seqlens, 1)


_STRAY = _stray()


def _groups(step: Step) -> tuple[_Group, _Group, np.ndarray]:
    """Decoded rows, chunks (a stray row where there are none), and the place i64 [T] of each token among both."""
    if step.draft_row is not None:
        return _with_draft(step, step.draft_row)
    count, new = step.decoded, step.chunk_new
    decoded, chunk, places = _STRAY, _STRAY, [numbered(count)]
    if count:
        decoded = _rows(step)
    if len(new):
        width = int(new.max())
        starts = count + np.cumsum(new) - new
        inside = np.arange(width)[None, :]
        index = np.where(inside < new[:, None], starts[:, None] + inside, 0)
        after = step.chunk_lengths + new
        chunk = _Group(index, (after - 1).astype(np.int32), int(after.max()))
        before = len(decoded.index)
        places += [before + row * width + np.arange(length) for row, length in enumerate(new)]
    return decoded, chunk, np.concatenate(places) if len(new) else places[0]


def _with_draft(step: Step, row: int) -> tuple[_Group, _Group, np.ndarray]:
    """As `_groups`, the chunk being a row's newest token and its draft. That token is in both groups, which write the
    same KV for it; a row that is alone needs the chunk only."""
    count, guessed = step.decoded, step.guessed
    index = np.concatenate([[row], np.arange(count, count + guessed)])
    last = int(step.lengths[row]) + guessed
    chunk = _Group(index[None, :], np.array([last], np.int32), last + 1)
    if count == 1:
        return _STRAY, chunk, np.arange(1, 2 + guessed)
    return _rows(step), chunk, np.concatenate([np.arange(count), count + np.arange(1, 1 + guessed)])


def _rows(step: Step) -> _Group:
    return _Group(_column(step.decoded), step.lengths, int(step.lengths.max()) + 1)


@lru_cache
def _column(count: int) -> np.ndarray:
    return numbered(count)[:, None]


def _padded(step: Step, rows: int, context: int) -> Step:
    """A decode step of `rows` rows: those that are added write one stray token behind what they hold."""
    more = rows - step.decoded
    if not more:
        return step
    parked = np.minimum(step.parked[:more], context - 1).astype(np.int32)
    return replace(
        step,
        drawn=numbered(rows),
        input_ids=np.concatenate([step.input_ids, zeros(more)]),
        image_slot=zeros(rows),
        positions=np.concatenate([step.positions, np.zeros((3, more), np.int64)], axis=1),
        lengths=np.concatenate([step.lengths, parked]),
        sampler=padded(step.sampler, more),
    )


class OrtVision:
    """The picture encoder."""

    def __init__(self, graph: Path, threads: int = 1, device: Device | None = None) -> None:
        self._session = open_session(graph, device or Host(), threads)

    def run(self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B pictures of one grid; see `contract.VISION_INPUTS`."""
        inputs = {IMAGE_PATCHES.name: patches, ROW_WEIGHTS.name: row_weights, COLUMN_WEIGHTS.name: column_weights}
        return self._session.run([IMAGE_FEATURES.name], inputs)[0]  # type: ignore[no-any-return]

    def encode(self, arrays: VisionArrays) -> np.ndarray:
        """Features f32 [image tokens, hidden] of one picture."""
        patches, rows, columns = arrays
        return self.run(patches[None], rows[None], columns[None])[0]  # type: ignore[no-any-return]
