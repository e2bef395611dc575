"""Where the time of one decode step goes, beside the time that memory needs for what the step reads.

The floor: every weight but the embedding table, and the KV of all rows, read once at the speed at which one processor
thread streams two arrays (a dot product far larger than the caches).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import FULL
from bench.harness import Run, seconds
from bench.measure.decode_steps import text_request
from bench.records import Row
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.request import Sequence
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.step_builder import step_of
from glmserve.model.config import Checkpoint

_CASES = ((1, 192), (1, 2048), (1, 4096), (1, 8000), (16, 192))
"""Rows, and the tokens each of them holds."""
_STEPS = 8
_CONTEXT = 8192
_KV_ELEMENT_BYTES = 4
_STREAM_BYTES = 1 << 28
_SHOWN = 6
"""How many kinds of node are named; the rest is added up."""


def measure(run: Run) -> list[Row]:
    """A row for each precision, number of rows and length: the step's time over the floor, and its parts."""
    return [row for name in PRECISIONS for row in _measure(run.build(FULL, name), name, run)]


def _measure(build: Path, precision: str, run: Run) -> list[Row]:
    checkpoint = Checkpoint.read(build / CHECKPOINT_FOLDER)
    graph = decoder_in(build)
    text, most = checkpoint.text, max(rows for rows, _ in _CASES)
    weights = _weight_bytes(graph, text.vocabulary * text.hidden)
    found = []
    for rows, length in _CASES:
        kv = 2 * text.layers * text.kv_heads * text.head_dim * _KV_ELEMENT_BYTES * rows * length
        running = [_running(row, length) for row in range(rows)]
        with tempfile.TemporaryDirectory() as folder:
            decoder = OrtDecoder(graph, checkpoint, most, _CONTEXT, run.threads, profile=Path(folder) / "step")
            step = step_of(running, [], SlotTable(most, most), decoder)

            def one_round(_number: int, once: Callable[[], object], read: int) -> dict[str, float]:
                step_s = median(seconds(once, 1 + _STEPS)[1:])
                return {"step_ms": step_s * 1e3, "over_floor": step_s / (read / _stream_bytes_per_s(run.threads))}

            title = f"One step, {precision}, {rows} rows of {length} tokens"
            once = partial(decoder.run, step)
            spreads = run.spreads(title, partial(one_round, once=once, read=weights + kv))
            parts = _parts(decoder.end_profile())
        sizes = {"weight_mib": round(weights / 2**20), "kv_mib": round(kv / 2**20)}
        found.append(
            {"precision": precision, "rows": rows, "length": length, **sizes, **spreads, "parts": parts, **run.row()}
        )
    return found


def _running(row: int, length: int) -> Sequence:
    """A sequence whose row is taken to hold so many tokens."""
    return Sequence(text_request(length), 0.0, row=row, length=length, answer=[0])


def _stream_bytes_per_s(threads: int) -> float:
    left, right = (np.ones(_STREAM_BYTES // 8, np.float32) for _ in range(2))
    with threadpool_limits(threads):
        return _STREAM_BYTES / min(seconds(lambda: np.dot(left, right), 4))


def _weight_bytes(graph: Path, embedding: int) -> int:
    """What a step reads of the graph's weights: all but the embedding, of which it reads a row a token."""
    model = onnx.load(graph, load_external_data=False)
    sizes = [(int(np.prod(tensor.dims)), tensor.data_type) for tensor in model.graph.initializer]
    total = sum(count * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for count, kind in sizes)
    largest = next(kind for count, kind in sizes if count == embedding)
    return total - embedding * onnx.helper.tensor_dtype_to_np_dtype(largest).itemsize


def _parts(profile: Path) -> dict[str, float]:
    """Each kind of node's share of all nodes' time, the largest first."""
    spent: Counter[str] = Counter()
    for event in json.loads(profile.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = spent.total()
    shares = {name: round(time_us / total, 4) for name, time_us in spent.most_common(_SHOWN)}
    return shares | {"other": round(1 - sum(shares.values()), 4)}
