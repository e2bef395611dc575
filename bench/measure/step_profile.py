"""Where the time of one decode step goes, beside the time that memory needs for what the step reads.

The floor: every weight but the embedding table, and the KV of all rows, read once at the speed at which one processor
thread streams two arrays (a dot product far larger than the caches).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import FULL
from bench.harness import Run, seconds
from bench.load.text_rows import decode_step
from bench.records import Row
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in
from glmserve.engine.runtime.ort_decoder import OrtDecoder
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
    builds = {precision: run.build(FULL, precision) for precision in PRECISIONS}
    return [
        {"precision": precision, "rows": rows, "length": length, **_measure(build, rows, length, run), **run.row()}
        for precision, build in builds.items()
        for rows, length in _CASES
    ]


def _measure(build: Path, rows: int, length: int, run: Run) -> Row:
    checkpoint, graph = Checkpoint.read(build / CHECKPOINT_FOLDER), decoder_in(build)
    text = checkpoint.text
    weights = _weight_bytes(graph, text.vocabulary * text.hidden)
    kv = 2 * text.layers * text.kv_heads * text.head_dim * _KV_ELEMENT_BYTES * rows * length
    with tempfile.TemporaryDirectory() as folder:
        most = max(rows for rows, _ in _CASES)
        decoder = OrtDecoder(graph, checkpoint, most, _CONTEXT, run.threads, profile=Path(folder) / "step")
        step = decode_step(decoder, rows, length)

        def one_round(_number: int) -> dict[str, float]:
            step_s = median(seconds(lambda: decoder.run(step), 1 + _STEPS)[1:])
            floor_s = (weights + kv) / _stream_bytes_per_s(run.threads)
            return {"step_ms": step_s * 1e3, "over_floor": step_s / floor_s}

        found = run.spreads(f"One step, {build.parent.name}, {rows} rows of {length} tokens", one_round)
        parts = _parts(decoder.end_profile())
    return {"weight_mib": round(weights / 2**20), "kv_mib": round(kv / 2**20), **found, "parts": parts}


def _stream_bytes_per_s(threads: int) -> float:
    left, right = (np.ones(_STREAM_BYTES // 8, np.float32) for _ in range(2))
    with threadpool_limits(threads):
        return _STREAM_BYTES / min(seconds(lambda: np.dot(left, right), 4))


def _weight_bytes(graph: Path, embedding: int) -> int:
    """What a step reads of the graph's weights: all but the embedding, of which it reads a row a token."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    counts = [int(np.prod(tensor.dims)) for tensor in tensors]
    sizes = [onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in tensors]
    return int(np.dot(counts, sizes)) - embedding * sizes[counts.index(embedding)]


def _parts(profile: Path) -> dict[str, float]:
    """Each kind of node's share of all nodes' time, the largest first."""
    spent: Counter[str] = Counter()
    for event in json.loads(profile.read_text("utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    shares = {name: round(time_us / spent.total(), 4) for name, time_us in spent.most_common(_SHOWN)}
    return shares | {"other": round(1 - sum(shares.values()), 4)}
