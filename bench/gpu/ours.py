"""The build's half of the GPU check: prefill, decode and the vision encoder on the engine's own sessions.

`python -m bench.gpu.ours PLAN RESULT` reads and writes JSON; it is a process of its own so that it frees the GPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.gpu.plan import Plan
from bench.harness import seconds
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.device import Device, open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.runtime.sampling import Draw, sampler_inputs
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import patches_of
from glmserve.model.position_embedding import vision_arrays
from glmserve.sampling_parameters import Sampling

_COPIED_BYTES = 1 << 28
_COPIES = 16
_VISION_RUNS = 5


@dataclass(frozen=True)
class Build:
    """The build under measurement, and the device it runs on."""

    folder: Path
    checkpoint: Checkpoint
    device: Device
    plan: Plan

    def decoder(self, rows: int, context: int, with_graphs: bool = False) -> OrtDecoder:
        buckets = tuple(n for n in self.plan.rows if n <= rows) if with_graphs else ()
        graph = decoder_in(self.folder)
        return OrtDecoder(graph, self.checkpoint, rows, context, self.plan.threads, self.device, buckets)

    def vision(self) -> OrtVision:
        return OrtVision(vision_in(self.folder), self.plan.threads, self.device)


def run(plan: Plan) -> dict[str, Any]:
    """All results of the build's half, as they go into JSON."""
    folder = Path(plan.build)
    build = Build(folder, Checkpoint.read(folder / CHECKPOINT_FOLDER), open_device(plan.device), plan)
    prompts = _prompts(build.checkpoint, max(plan.rows), plan.prompt_tokens)
    graphs = (True, False) if plan.device == "cuda" else (False,)
    decoded = [row for with_graphs in graphs for row in _decode_all(build, prompts, with_graphs)]
    if plan.kv == "int8":
        return {"decoded": decoded}
    return {
        "prompts": prompts.tolist(),
        "decoded": decoded,
        "checked": _checked(build, prompts),
        "kv": _kv_in_place(build, prompts),
        "vision": _vision(build),
        "bandwidth_bytes_per_s": copy_bandwidth(build.device),
    }


def copy_bandwidth(device: Device) -> float:
    """Bytes that the device's memory reads and writes a second while it copies."""
    source, target = device.allocate(_COPIED_BYTES), device.allocate(_COPIED_BYTES)
    device.fill_with_nan(source, _COPIED_BYTES)

    def copy() -> None:
        device.copy(source.address, target.address, _COPIED_BYTES, _COPIED_BYTES, count=1)
        device.wait()

    return 2 * _COPIED_BYTES / min(seconds(copy, _COPIES))


def _decode_all(build: Build, prompts: np.ndarray, with_graphs: bool) -> list[dict[str, Any]]:
    """For each number of rows: the prefill of one prompt after another, then decoding all of them together."""
    plan = build.plan
    decoder = build.decoder(max(plan.rows), plan.least_context, with_graphs)
    found = []
    for rows in plan.rows:
        _answer(decoder, prompts[:rows], 2, plan.chunk_tokens)  # warms up, and captures where graphs are
        prefill_s, steps_s, tokens, _ = _answer(decoder, prompts[:rows], plan.new_tokens, plan.chunk_tokens)
        found.append(
            {
                "rows": rows,
                "kv": plan.kv,
                "cuda_graphs": decoder.captures_graphs,
                "prefill_tokens_per_s": rows * plan.prompt_tokens / prefill_s,
                "step_s": statistics.median(steps_s),
                "tokens": tokens,
            }
        )
    return found


def _checked(build: Build, prompts: np.ndarray) -> dict[str, Any]:
    """A few answers with the log-probability of each token, for comparison with torch; the KV cache starts as NaN."""
    rows, plan = prompts[: min(8, len(prompts))], build.plan
    decoder = build.decoder(len(rows), plan.least_context)
    decoder.poison()
    _, _, tokens, logprobs = _answer(decoder, rows, plan.new_tokens, plan.chunk_tokens, wants_logprobs=True)
    return {"tokens": tokens, "logprobs": logprobs}


def _kv_in_place(build: Build, prompts: np.ndarray) -> dict[str, float]:
    """A step's time with a small and a large KV cache: a step that copied it would take longer with the large one."""
    times, plan = [], build.plan
    for context in (plan.least_context, plan.most_context):
        decoder = build.decoder(1, context)
        _answer(decoder, prompts[:1], 2, plan.chunk_tokens)
        _, steps_s, _, _ = _answer(decoder, prompts[:1], plan.new_tokens, plan.chunk_tokens)
        times.append(statistics.median(steps_s))
        del decoder
    return {"step_s_little_room": times[0], "step_s_much_room": times[1]}


def _vision(build: Build) -> dict[str, Any]:
    """The features of one image, and how long they take."""
    vision, shape = build.vision(), build.checkpoint.vision
    patches, grid = patches_of(_image(build.plan), build.checkpoint.images)
    arrays = vision_arrays(patches, grid, shape.table_side)
    features = vision.encode(arrays)
    times = seconds(lambda: vision.encode(arrays), _VISION_RUNS)
    return {"patches": len(patches), "seconds": statistics.median(times), "features": features.tolist()}


def _image(plan: Plan) -> Image.Image:
    return Image.open(plan.image).convert("RGB")


def _prompts(checkpoint: Checkpoint, count: int, tokens: int) -> np.ndarray:
    """Random text i64 [count, tokens], without image tokens."""
    random = np.random.default_rng(0)
    return random.integers(0, min(checkpoint.image_token_id, checkpoint.text.vocabulary), (count, tokens))


def _answer(
    decoder: OrtDecoder, prompts: np.ndarray, new_tokens: int, chunk_tokens: int, wants_logprobs: bool = False
) -> tuple[float, list[float], list[list[int]], list[list[float]]]:
    """Seconds of all prefills, of each decode step, and each row's greedy tokens and log-probabilities."""
    rows, length = prompts.shape
    began_s = time.perf_counter()
    first = [_prefill(decoder, row, prompts[row], chunk_tokens, wants_logprobs) for row in range(rows)]
    prefill_s = time.perf_counter() - began_s
    tokens = [[int(sampled.tokens[0])] for sampled in first]
    logprobs = [_logprobs(sampled) for sampled in first]
    steps_s = []
    for index in range(new_tokens - 1):
        ids = np.array([answer[-1] for answer in tokens], np.int64)
        lengths = np.full(rows, length + index, np.int32)
        step = _step(decoder, ids, lengths.astype(np.int64), np.arange(rows), wants_logprobs)
        step = replace(step, lengths=lengths, parked=np.zeros(decoder.rows - rows, np.int32))
        began_s = time.perf_counter()
        sampled = decoder.run(step)
        steps_s.append(time.perf_counter() - began_s)
        for row in range(rows):
            tokens[row].append(int(sampled.tokens[row]))
            logprobs[row] += _logprobs(sampled)[row : row + 1]
    return prefill_s, steps_s, tokens, logprobs


def _prefill(decoder: OrtDecoder, row: int, prompt: np.ndarray, chunk_tokens: int, wants_logprobs: bool) -> Sampled:
    """Prefills a prompt in chunks, as the engine does; returns what was sampled after its last token."""
    sampled = None
    for start in range(0, len(prompt), chunk_tokens):
        part = prompt[start : start + chunk_tokens]
        new = np.array([len(part)], np.int64)
        step = _step(decoder, part, start + np.arange(len(part)), new - 1, wants_logprobs)
        lengths = np.array([start], np.int32)
        sampled = decoder.run(replace(step, first_row=row, chunk_lengths=lengths, chunk_new=new))
    assert sampled is not None
    return sampled


def _logprobs(sampled: Sampled) -> list[float]:
    """Of the sampled tokens, row by row; empty where none are wanted."""
    return [float(values[0]) for values in sampled.logprob_values if len(values)]


def _step(
    decoder: OrtDecoder, input_ids: np.ndarray, positions: np.ndarray, drawn: np.ndarray, wants_logprobs: bool
) -> Step:
    """A step of text that samples after the tokens `drawn`, with both groups still empty; i64 [T] each."""
    draws = [Draw(Sampling(logprobs=wants_logprobs))] * len(drawn)
    sampler = sampler_inputs(draws, decoder.candidates, decoder.vocabulary)
    return Step.drawing(input_ids, np.broadcast_to(positions, (3, len(input_ids))), drawn, sampler)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Plan.read(Path(sys.argv[1])))), "utf-8")
