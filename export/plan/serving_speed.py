"""How fast this machine would serve a build that does not exist yet: a few of its layers, all zeros, are run here.

The layers are the build's own graph in the build's own precision, so that the same kernels run over as many bytes. What
one more layer takes, and one more row of the head, is measured; the rest is multiplication.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from export.build.onnx_writer import graph_bytes, refer_to_file, tensors_of, unwritten, weights_file
from export.build.tensor_writer import offsets_of
from export.checkpoint.header_weights import HeaderWeights
from export.checkpoint.packed import PackedWeight
from export.graph.decoder import decoder_graph
from export.graph.vision_encoder import vision_graph
from export.precision import Numbers
from glmserve.engine.runtime.decoder import Step
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.runtime.sampling import GREEDY, sampler_inputs
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid, grid_of
from glmserve.model.position_embedding import vision_arrays
from glmserve.system.memory import total_memory_bytes

PHOTOS = ((640, 480), (1920, 1080))
"""Width and height of the photos whose first token is foretold."""
ROWS = (1, 16)
"""Requests that decode together."""
QUESTION_TOKENS = 20
_ANSWER_TOKENS = 100
_CHUNK = 64
_CONTEXT = 512
_LEAST_BYTES = 96e6
"""Weights of the fewest layers that are run: more than a processor's cache holds, unless the whole model is smaller."""
_VOCABULARIES = 4096, 16384
_MOST_TAKES, _LEAST_TAKES, _ENOUGH_S = 50, 2, 0.5
_LONG_S = 2.0


@dataclass(frozen=True)
class ServingSpeed:
    """Seconds until the first token about each photo, when nobody else asks, and tokens a second of all requests
    together for each number of them."""

    first_token_s: dict[tuple[int, int], float]
    tokens_a_second: dict[int, float]

    def as_json(self) -> dict[str, dict[str, float]]:
        """As `plan --json` prints it."""
        return {
            "first_token_s": {f"{width}x{height}": round(s, 4) for (width, height), s in self.first_token_s.items()},
            "tokens_per_s": {str(rows): round(rate, 2) for rows, rate in self.tokens_a_second.items()},
        }

    def sentences(self, deadline_s: float) -> list[str]:
        """What an operator should know; `deadline_s` is what the gateway gives an answer where nobody sets it."""
        photos = ", ".join(f"{w}x{h} {s:,.2g} s" for (w, h), s in self.first_token_s.items())
        rates = ", ".join(f"{rows} at a time {rate:,.3g}" for rows, rate in self.tokens_a_second.items())
        told = [
            "Serving speed on this machine, from layers run just now: first token about a photo of "
            f"{photos}. Tokens a second with requests {rates}."
        ]
        slowest_s = max(self.first_token_s.values()) + _ANSWER_TOKENS / self.tokens_a_second[ROWS[0]]
        if slowest_s > deadline_s:
            told.append(
                f"An answer of {_ANSWER_TOKENS} tokens about the larger photo takes about {slowest_s:,.0f} s, and "
                f"GLM_GATEWAY_DEADLINE_S allows {deadline_s:g} s where nobody sets it: set it higher, or choose a "
                "--precision of fewer bits."
            )
        return told


@dataclass(frozen=True)
class _Times:
    """Seconds of a decode step for each number of rows, and of a chunk of a prompt."""

    steps: tuple[float, ...]
    chunk: float

    def plus(self, other: _Times, factor: float) -> _Times:
        steps = tuple(a + factor * b for a, b in zip(self.steps, other.steps, strict=True))
        return _Times(steps, self.chunk + factor * other.chunk)


@dataclass(frozen=True)
class _Slice(HeaderWeights):
    """Zeros of any shape: the sizes of a slice are not the checkpoint's."""

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight | None:
        stored = self.tensors.get(name)
        if stored is None or len(stored.shape) != 2:
            return None
        packed = self.source.packed(name, (stored.shape[0], stored.shape[1]))
        return None if packed is None else replace(packed, shape=shape)

    def _stored(self, name: str, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape) * self.stored_dtype(name).itemsize)


def can_measure(checkpoint: Checkpoint, numbers: Numbers) -> bool:
    """Whether the layers that would be run fit into a quarter of this machine's memory, with the copies that ONNX
    Runtime makes of them."""
    layers = min(checkpoint.text.layers, 2 * _layers_of(checkpoint, numbers))
    return 2 * layers * _layer_bytes(checkpoint, numbers) < total_memory_bytes() / 4


def serving_speed(
    checkpoint: Checkpoint, headers: HeaderWeights, numbers: Numbers, threads: int, vision_threads: int
) -> ServingSpeed:
    """Measures on this processor, which takes seconds to a minute. What it writes are files of holes, which are gone
    when it returns. Raises BadArtifact for a graph that ONNX Runtime cannot run here."""
    weights = _Slice(headers.folder, headers.shards, headers.tensors, {}, headers.source)
    with TemporaryDirectory(prefix="glm-plan-") as folder:
        times = _decoder_times(checkpoint, weights, numbers, threads, Path(folder))
        first = {}
        for width, height in PHOTOS:
            grid = grid_of(height, width, checkpoint.images)
            encode_s = _photo_s(checkpoint, weights, numbers, vision_threads, Path(folder), grid)
            tokens = grid.tokens(checkpoint.vision.merge_size) + QUESTION_TOKENS
            first[width, height] = encode_s + tokens * times.chunk / _CHUNK
    return ServingSpeed(first, {rows: rows / step_s for rows, step_s in zip(ROWS, times.steps, strict=True)})


def _decoder_times(checkpoint: Checkpoint, weights: _Slice, numbers: Numbers, threads: int, folder: Path) -> _Times:
    text = checkpoint.text

    def run(layers: int, vocabulary: int) -> _Times:
        cut = replace(checkpoint, text=replace(text, layers=layers, vocabulary=vocabulary))
        graph = _with_holes(decoder_graph(cut, weights, numbers), folder / "decoder.onnx")
        return _measured(OrtDecoder(graph, cut, max(ROWS), _CONTEXT, threads), vocabulary)

    few, many = (min(text.vocabulary, size) for size in _VOCABULARIES)
    layers = min(text.layers, _layers_of(checkpoint, numbers))
    base = run(layers, few)
    if layers < text.layers:
        more = min(text.layers, 2 * layers)
        base = base.plus(run(more, few).plus(base, -1), (text.layers - layers) / (more - layers))
    if few < text.vocabulary:
        one = run(layers, few) if layers < text.layers else base
        head = run(layers, many).plus(one, -1)
        base = base.plus(head, (text.vocabulary - few) / (many - few))
    return base


def _layers_of(checkpoint: Checkpoint, numbers: Numbers) -> int:
    """Layers whose weights no cache holds."""
    return max(1, round(_LEAST_BYTES / _layer_bytes(checkpoint, numbers)))


def _layer_bytes(checkpoint: Checkpoint, numbers: Numbers) -> float:
    text = checkpoint.text
    attention = text.hidden * text.head_dim * 2 * (text.heads + text.kv_heads)
    values = attention + 3 * text.hidden * text.ffn
    bits = numbers.bits or min(numbers.kept_bits, default=None)
    return values * (bits / 8 if bits else float(numbers.real.itemsize))


def _photo_s(
    checkpoint: Checkpoint, weights: _Slice, numbers: Numbers, threads: int, folder: Path, grid: Grid
) -> float:
    """What the whole encoder takes for one image of this grid."""
    vision = checkpoint.vision
    patches = np.zeros((grid.patches, checkpoint.images.patch_bytes), np.uint8)
    arrays = vision_arrays(patches, grid, vision.table_side)

    def run(depth: int) -> float:
        cut = replace(checkpoint, vision=replace(vision, depth=depth))
        graph = _with_holes(vision_graph(cut, weights, numbers), folder / "vision.onnx")
        session = OrtVision(graph, threads)
        return _shortest_s(lambda: session.encode(arrays))

    one_s = run(1)
    return one_s if vision.depth == 1 else one_s + (vision.depth - 1) * max(0.0, run(2) - one_s)


def _with_holes(model: ir.Model, path: Path) -> Path:
    """The graph at `path`, and beside it a file in which every weight is a hole; what was computed is written."""
    values, data = unwritten(model), weights_file(path)
    tensors = tensors_of(values)
    offsets = offsets_of(tensors)
    with data.open("wb") as file:
        file.truncate(offsets[-1])
        for tensor, offset in zip(tensors, offsets, strict=False):
            if not isinstance(tensor, ir.LazyTensor):
                file.seek(offset)
                file.write(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    refer_to_file(values, data)
    path.write_bytes(graph_bytes(model))
    return path


def _measured(decoder: OrtDecoder, vocabulary: int) -> _Times:
    def step(tokens: int, decoded: bool) -> Callable[[], object]:
        drawn = np.arange(tokens) if decoded else np.array([tokens - 1])
        sampler = sampler_inputs([GREEDY] * len(drawn), decoder.candidates, vocabulary)
        places = np.zeros(tokens, np.int64) if decoded else np.arange(tokens)
        made = Step.drawing(np.zeros(tokens, np.int64), np.repeat(places[None], 3, axis=0), drawn, sampler)
        if decoded:
            made = replace(made, lengths=np.zeros(tokens, np.int32))
        else:
            made = replace(made, chunk_lengths=np.zeros(1, np.int32), chunk_new=np.array([tokens], np.int64))
        return lambda: decoder.run(made)

    return _Times(tuple(_shortest_s(step(rows, True)) for rows in ROWS), _shortest_s(step(_CHUNK, False)))


def _shortest_s(act: Callable[[], object]) -> float:
    """The shortest of several times in seconds, of two where they are long, because the first finds cold caches. One
    that takes seconds is not repeated: its caches are warm for all but its beginning."""
    times: list[float] = []
    while sum(times) < _LONG_S and (len(times) < _LEAST_TAKES or (sum(times) < _ENOUGH_S and len(times) < _MOST_TAKES)):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)
