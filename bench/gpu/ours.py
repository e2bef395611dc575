"""The build's half of the GPU check: prefill, decode and the vision encoder on the engine's own sessions.

`python -m bench.gpu.ours PLAN RESULT` reads and writes JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
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
_CHECKED_ROWS = 8


@dataclass
class Answers:
    """The greedy tokens of each row with their log-probabilities, the seconds of all prefills and of each step."""

    prefill_s: float = 0.0
    steps_s: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)

    @property
    def step_s(self) -> float:
        return statistics.median(self.steps_s)


class Build:
    """The build under measurement, on the device that the plan names."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._folder = Path(plan.build)
        self._checkpoint = Checkpoint.read(self._folder / CHECKPOINT_FOLDER)
        self.device = open_device(plan.device)
        vocabulary = min(self._checkpoint.image_token_id, self._checkpoint.text.vocabulary)
        shape = max(plan.rows), plan.prompt_tokens
        self.prompts = np.random.default_rng(0).integers(0, vocabulary, shape)  # text alone

    def run(self) -> dict[str, Any]:
        """All results of the build's half, as they go into JSON."""
        graphs = (True, False) if self.plan.device == "cuda" else (False,)
        decoded = [row for with_graphs in graphs for row in self._decoded(with_graphs)]
        if self.plan.kv == "int8":
            return {"decoded": decoded}
        return {
            "prompts": self.prompts.tolist(),
            "decoded": decoded,
            "checked": self._checked(),
            "kv_step_s": [self._step_s_with_room(n) for n in (self.plan.least_context, self.plan.most_context)],
            "vision": self._vision(),
            "bandwidth_bytes_per_s": copy_bandwidth(self.device),
        }

    def _decoder(self, rows: int, context: int, with_graphs: bool = False) -> OrtDecoder:
        buckets = tuple(n for n in self.plan.rows if n <= rows) if with_graphs else ()
        graph = decoder_in(self._folder)
        return OrtDecoder(graph, self._checkpoint, rows, context, self.plan.threads, self.device, buckets)

    def _decoded(self, with_graphs: bool) -> list[dict[str, Any]]:
        """For each number of rows: the prefill of one prompt after another, then decoding all of them together."""
        decoder, found = self._decoder(max(self.plan.rows), self.plan.least_context, with_graphs), []
        for rows in self.plan.rows:
            answers = self._warm_answers(decoder, rows)
            found.append(
                {
                    "rows": rows,
                    "kv": self.plan.kv,
                    "cuda_graphs": decoder.captures_graphs,
                    "prefill_tokens_per_s": rows * self.plan.prompt_tokens / answers.prefill_s,
                    "step_s": answers.step_s,
                    "tokens": answers.tokens,
                }
            )
        return found

    def _checked(self) -> dict[str, Any]:
        """A few answers with the log-probability of each token, for comparison with torch; the KV cache starts as
        NaN."""
        rows = min(_CHECKED_ROWS, len(self.prompts))
        decoder = self._decoder(rows, self.plan.least_context)
        decoder.poison()
        answers = self._answers(decoder, rows, self.plan.new_tokens, wants_logprobs=True)
        return {"tokens": answers.tokens, "logprobs": answers.logprobs}

    def _step_s_with_room(self, context: int) -> float:
        """A step's time with a KV cache of this size: one that copied it would take longer with a large one."""
        return self._warm_answers(self._decoder(1, context), 1).step_s

    def _vision(self) -> dict[str, Any]:
        """The features of one image, and how long they take."""
        vision = OrtVision(vision_in(self._folder), self.plan.threads, self.device)
        patches, grid = patches_of(Image.open(self.plan.image).convert("RGB"), self._checkpoint.images)
        arrays = vision_arrays(patches, grid, self._checkpoint.vision.table_side)
        features = vision.encode(arrays)
        times = seconds(lambda: vision.encode(arrays), _VISION_RUNS)
        return {"patches": len(patches), "seconds": statistics.median(times), "features": features.tolist()}

    def _warm_answers(self, decoder: OrtDecoder, rows: int) -> Answers:
        self._answers(decoder, rows, 2)  # captures, where graphs are
        return self._answers(decoder, rows, self.plan.new_tokens)

    def _answers(self, decoder: OrtDecoder, rows: int, new_tokens: int, wants_logprobs: bool = False) -> Answers:
        answers = Answers()
        began_s = time.perf_counter()
        first = [self._prefill(decoder, row, wants_logprobs) for row in range(rows)]
        answers.prefill_s = time.perf_counter() - began_s
        answers.tokens = [[int(sampled.tokens[0])] for sampled in first]
        answers.logprobs = [_logprobs(sampled) for sampled in first]
        for length in range(self.plan.prompt_tokens, self.plan.prompt_tokens + new_tokens - 1):
            ids = np.array([answer[-1] for answer in answers.tokens], np.int64)
            lengths = np.full(rows, length, np.int32)
            step = _step(decoder, ids, lengths.astype(np.int64), np.arange(rows), wants_logprobs)
            step = replace(step, lengths=lengths, parked=np.zeros(decoder.rows - rows, np.int32))
            began_s = time.perf_counter()
            sampled = decoder.run(step)
            answers.steps_s.append(time.perf_counter() - began_s)
            for row in range(rows):
                answers.tokens[row].append(int(sampled.tokens[row]))
                answers.logprobs[row] += _logprobs(sampled)[row : row + 1]
        return answers

    def _prefill(self, decoder: OrtDecoder, row: int, wants_logprobs: bool) -> Sampled:
        """Prefills a prompt in chunks, as the engine does; returns what was sampled after its last token."""
        for start in range(0, self.plan.prompt_tokens, self.plan.chunk_tokens):
            part = self.prompts[row, start : start + self.plan.chunk_tokens]
            new = np.array([len(part)], np.int64)
            step = _step(decoder, part, start + np.arange(len(part)), new - 1, wants_logprobs)
            lengths = np.array([start], np.int32)
            sampled = decoder.run(replace(step, first_row=row, chunk_lengths=lengths, chunk_new=new))
        return sampled


def copy_bandwidth(device: Device) -> float:
    """Bytes that the device's memory reads and writes a second while it copies."""
    source, target = device.allocate(_COPIED_BYTES), device.allocate(_COPIED_BYTES)
    device.fill_with_nan(source, _COPIED_BYTES)

    def copy() -> None:
        device.copy(source.address, target.address, _COPIED_BYTES, _COPIED_BYTES, count=1)
        device.wait()

    return 2 * _COPIED_BYTES / min(seconds(copy, _COPIES))


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
    Path(sys.argv[2]).write_text(json.dumps(Build(Plan.read(Path(sys.argv[1]))).run()), "utf-8")
