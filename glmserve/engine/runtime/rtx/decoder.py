"""The decoder on TensorRT for RTX: a step's arrays go to the device, its engines run, and sampled tokens come back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from glmserve.build.rtx_engines import NEXT_RESIDUAL
from glmserve.contract import DecoderGraph
from glmserve.engine.runtime.attention_groups import Group, groups, padded_step
from glmserve.engine.runtime.constant_arrays import numbered, zeros
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.kv_cache import KvCache, KvShape
from glmserve.engine.runtime.rtx.arrays import DeviceArrays
from glmserve.engine.runtime.rtx.chain import BETWEEN, Chain
from glmserve.engine.runtime.rtx.engine import PlanEngine, Shape, WorkMemory, elements
from glmserve.engine.runtime.rtx.kernel_cache import KernelCache
from glmserve.engine.runtime.rtx.stream import Stream
from glmserve.engine.runtime.sampling import GREEDY, SamplerInputs, filled, sampler_inputs
from glmserve.errors import BadArtifact
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.model.config import Checkpoint

_log = logging.getLogger(__name__)
_MOST_GRAPHS = 64
"""Captured at most, since each holds contexts for as long as the decoder lives."""
_KV = "past_"
"""In the names of KV buffers, which are no arrays of a step."""
_NOBODY = Group(np.zeros((0, 1), np.int64), np.zeros(0, np.int32), 1)
"""The prefill group of a step that only decodes."""


@dataclass
class Captured:
    """A decode step's chain, the graph captured of it, and the generation of working memory it was captured in; `graph`
    is None until then, and where it cannot be captured."""

    chain: Chain
    graph: int | None = None
    generation: int = -1
    is_refused: bool = False


class RtxDecoder:
    """A `DecoderSession`. `buckets` are the numbers of rows that a decode step is padded to; each is captured as a CUDA
    graph over all engines, once more for each size of the sampler's extras. Empty where steps are launched as they are.
    """

    def __init__(
        self,
        engines: Sequence[PlanEngine],
        checkpoint: Checkpoint,
        rows: int,
        kv_element: int,
        stream: Stream,
        cache: KernelCache,
        buckets: tuple[int, ...] = (),
    ) -> None:
        """`kv_element` is ONNX's number for the type of KV. Raises BadArtifact when the engines do not take as many
        rows as the largest bucket."""
        text, first = checkpoint.text, DecoderGraph.DECODED.past(0)[0]
        with_kv = next(engine for engine in engines if first in engine.inputs)
        most_rows, _, self.context, _ = with_kv.most(first)
        if buckets and buckets[-1] > most_rows:
            raise BadArtifact(
                f"The build's engines decode {most_rows} requests together, and GLM_ENGINE_SLOTS is {buckets[-1]}: set "
                f"GLM_ENGINE_SLOTS={most_rows}, or export the checkpoint with --slots {buckets[-1]}."
            )
        self.rows, self.vocabulary = rows, text.vocabulary
        self.short_rows = self.short_tokens = 0  # a row is as long as the engines were built for
        self.candidates = min(SAMPLER_CANDIDATES, text.vocabulary)
        self._engines, self._stream, self._cache, self._buckets = engines, stream, cache, buckets
        self._no_features = np.zeros((1, text.hidden), np.float32)
        self._kv = KvCache(stream.memory, KvShape.of(text, rows, self.context, kv_element))
        self._kv_blocks()
        self._arrays = DeviceArrays(stream)
        self._make_room()
        self._captured: dict[tuple[int, ...], Captured] = {}
        self._decode_work, self._mixed_work = WorkMemory(stream.memory), WorkMemory(stream.memory)
        self._mixed = Chain(engines, stream, self._mixed_work)
        self._mixed.address(self._addresses(0, None))
        self._sampler: SamplerInputs | None = None  # whose arrays were put last

    @property
    def captures_graphs(self) -> bool:
        """Whether decode steps run as captured CUDA graphs, all that have run so far."""
        return bool(self._buckets) and not any(captured.is_refused for captured in self._captured.values())

    def run(self, step: Step) -> Sampled:
        self._stream.memory.use()
        count = len(step.drawn)
        if step.is_decode and self._buckets:
            step = padded_step(step, next(size for size in self._buckets if size >= count), self.context)
        sampler = step.sampler
        captured = None
        if step.is_decode and self._buckets:
            sampler = self._filled(sampler)
            captured = self._captured_for(step.decoded, sampler)
        shapes = self._put(step, sampler)
        if captured is None:
            self._run_mixed(step, shapes)
        else:
            self._run_captured(captured, shapes)
        return self._read(count, len(step.sampler.logprob_rows), len(sampler.logprob_rows))

    def warm_up(self) -> None:
        """Runs a plain step in every bucket, the largest first, and a chunk of prompt: kernels are compiled and graphs
        captured before the first request comes, and what was compiled is kept for the next start."""
        for rows in reversed(self._buckets or (1,)):
            sampler = sampler_inputs([GREEDY] * rows, self.candidates, self.vocabulary)
            step = Step.drawing(zeros(rows), np.zeros((3, rows), np.int64), numbered(rows), sampler)
            self.run(replace(step, lengths=np.zeros(rows, np.int32)))
        sampler = sampler_inputs([GREEDY], self.candidates, self.vocabulary)
        step = Step.drawing(zeros(1), np.zeros((3, 1), np.int64), numbered(1), sampler)
        self.run(replace(step, chunk_lengths=np.zeros(1, np.int32), chunk_new=np.ones(1, np.int64)))
        self._cache.keep()

    def move(self, source: int, target: int, length: int) -> None:
        self._kv.move(source, target, length)

    def read(self, name: str, shape: Shape, dtype: type[np.generic]) -> np.ndarray:
        """An output of the last step."""
        array = self._arrays.get(name, shape, dtype)
        self._arrays.settle()
        return array

    def _kv_blocks(self) -> None:
        """Zeros in all of KV: an attention kernel multiplies what it leaves out by 0. And a row for nobody, which
        every layer writes over and none reads sensibly."""
        shape, memory = self._kv.shape, self._stream.memory
        for block in self._kv.blocks:
            self._stream.fill_with_zeros(block, shape.rows * shape.row_bytes)
        self._nobodys_row = memory.allocate(shape.row_bytes)
        self._stream.fill_with_zeros(self._nobodys_row, shape.row_bytes)

    def _make_room(self) -> None:
        """A place for every array of a step, as large as the engines take it."""
        most: dict[str, Shape] = {}
        for engine in self._engines:
            for name in engine.inputs:
                if _KV not in name:
                    most[name] = engine.most(name)
                    self._arrays.make_room(name, elements(most[name]) * engine.item_bytes(name), engine.dtype(name))
        for engine in self._engines:
            context = engine.context()
            context.shape({name: engine.most(name) for name in engine.inputs})
            for name in engine.outputs:
                size = 0 if engine.writes_over(name) else elements(context.shape_of(name)) * engine.item_bytes(name)
                for place in BETWEEN if name == NEXT_RESIDUAL else (name,) if size else ():
                    self._arrays.make_room(place, size, engine.dtype(name))

    def _filled(self, sampler: SamplerInputs) -> SamplerInputs:
        """Lists of extras in few different lengths, for capturing, where the engines take lists so long."""
        longer = filled(sampler)
        fits = all(self._arrays.holds(name, array) for name, array in longer.by_input().items())
        return longer if fits else sampler

    def _captured_for(self, rows: int, sampler: SamplerInputs) -> Captured | None:
        """What runs steps of these sizes; None where enough others are captured."""
        key = rows, *sampler.extras
        if key not in self._captured:
            if len(self._captured) >= _MOST_GRAPHS:
                return None
            chain = Chain(self._engines, self._stream, self._decode_work, has_few_shapes=True)
            chain.address(self._addresses(0, None))
            self._captured[key] = Captured(chain)
        return self._captured[key]

    def _run_captured(self, captured: Captured, shapes: dict[str, Shape]) -> None:
        """Replays the graph; the first step of its sizes is launched, which compiles kernels, and then captured."""
        if captured.graph is not None and captured.generation == self._decode_work.generation:
            self._stream.replay(captured.graph)
            return
        captured.chain.shape(shapes)
        captured.chain.run()
        self._arrays.settle()
        if captured.is_refused:
            return
        try:
            if not captured.chain.is_capturable:
                raise RuntimeError("TensorRT for RTX says that they cannot")
            captured.graph = self._stream.capture(captured.chain.run)
            captured.generation = self._decode_work.generation
        except RuntimeError as error:
            _log.warning("decode steps cannot be captured and are launched engine by engine: %s", error)
            captured.is_refused = True

    def _run_mixed(self, step: Step, shapes: dict[str, Shape]) -> None:
        """A step that reads more than a token of each row, whose rows change."""
        if step.draft_row is not None:
            first = step.draft_row
            decodes = step.decoded > 1
        else:
            first, decodes = step.first_row, bool(step.decoded)
        self._mixed.address(self._addresses(first, None if decodes else self._nobodys_row.address))
        self._mixed.shape(shapes)
        self._mixed.run()

    def _addresses(self, first: int, nobody: int | None) -> dict[str, int]:
        """Where everything lies when the prefill group begins at row `first`, and the decoded rows at row 0, or in the
        row `nobody` where there are none."""
        decoded = self._kv.addresses(DecoderGraph.DECODED, 0)
        if nobody is not None:
            decoded = dict.fromkeys(decoded, nobody)
        return {**self._arrays.addresses, **decoded, **self._kv.addresses(DecoderGraph.CHUNK, first)}

    def _put(self, step: Step, sampler: SamplerInputs) -> dict[str, Shape]:
        """Sends what changed since the last step; the shapes of all inputs."""
        decoded, chunk, places = groups(step)
        if step.is_decode:
            chunk = _NOBODY
        arrays = {
            DecoderGraph.INPUT_IDS: step.input_ids,
            DecoderGraph.POSITION_IDS: step.positions,
            DecoderGraph.IMAGE_FEATURES: self._no_features if step.features is None else step.features,
            DecoderGraph.IMAGE_SLOT: step.image_slot,
            DecoderGraph.PLACES: places,
            DecoderGraph.LOGITS_INDEX: step.drawn,
        }
        for names, group in ((DecoderGraph.DECODED, decoded), (DecoderGraph.CHUNK, chunk)):
            arrays |= {names.index: group.index, names.seqlens_k: group.seqlens}
        if sampler is not self._sampler:
            arrays |= sampler.by_input()
            self._sampler = sampler
        for name, array in arrays.items():
            self._arrays.put(name, array)
        return {**self._arrays.shapes, **self._kv_shapes(len(decoded.index), len(chunk.index))}

    def _kv_shapes(self, decoded: int, chunks: int) -> dict[str, Shape]:
        shape = self._kv.shape
        rest = shape.kv_heads, shape.context, shape.head_dim
        return {
            name: (rows, *rest)
            for group, rows in ((DecoderGraph.DECODED, decoded), (DecoderGraph.CHUNK, chunks))
            for layer in range(shape.layers)
            for name in group.past(layer)
        }

    def _read(self, count: int, asked: int, listed: int) -> Sampled:
        """The first `count` tokens, and `asked` of the `listed` rows' log-probabilities."""
        width = 1 + min(MAX_LOGPROBS, self.vocabulary)
        tokens = self._arrays.get(DecoderGraph.TOKEN, (count, 1), np.int64)
        ids, values = np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
        if asked:
            ids = self._arrays.get(DecoderGraph.LOGPROB_IDS, (listed, width), np.int64)
            values = self._arrays.get(DecoderGraph.LOGPROB_VALUES, (listed, width), np.float32)
        self._arrays.settle()
        return Sampled(tokens[:, 0], ids[:asked], values[:asked])
