"""The build's half of the GPU check: prefill, decode and the vision encoder on the engine's own sessions.

`python -m bench.gpu.ours PLAN RESULT` reads and writes JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from bench.gpu.plan import Plan
from bench.harness import seconds
from bench.load.text_rows import TextRows
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.runtime.device import Device, open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import patches_of
from glmserve.model.position_embedding import vision_arrays

_COPIED_BYTES = 1 << 28
_COPIES = 16
_VISION_RUNS = 5
_CHECKED_ROWS = 8


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
        rooms = self.plan.least_context, self.plan.most_context  # a step that copied the KV would take longer with more
        return {
            "prompts": self.prompts.tolist(),
            "decoded": decoded,
            "checked": self._checked(),
            "kv_step_s": [self._answers(self._decoder(1, context), 1)["step_s"] for context in rooms],
            "vision": self._vision(),
            "bandwidth_bytes_per_s": copy_bandwidth(self.device),
        }

    def _decoder(self, rows: int, context: int, with_graphs: bool = False) -> OrtDecoder:
        buckets = tuple(n for n in self.plan.rows if n <= rows) if with_graphs else ()
        graph = decoder_in(self._folder)
        return OrtDecoder(graph, self._checkpoint, rows, context, self.plan.threads, self.device, buckets)

    def _decoded(self, with_graphs: bool) -> list[dict[str, Any]]:
        decoder = self._decoder(max(self.plan.rows), self.plan.least_context, with_graphs)
        return [self._answers(decoder, rows) for rows in self.plan.rows]

    def _answers(self, decoder: OrtDecoder, rows: int) -> dict[str, Any]:
        """The prefill of one prompt after another, then decoding all of them together; captures, where graphs are,
        come before."""
        for new_tokens in (2, self.plan.new_tokens):
            texts, began_s = TextRows(decoder, self.prompts[:rows]), time.perf_counter()
            texts.prefill(self.plan.chunk_tokens)
            prefill_s = time.perf_counter() - began_s
            steps_s = [texts.decode() for _ in range(new_tokens - 1)]
        return {
            "rows": rows,
            "kv": self.plan.kv,
            "cuda_graphs": decoder.captures_graphs,
            "prefill_tokens_per_s": rows * self.plan.prompt_tokens / prefill_s,
            "step_s": median(steps_s),
            "tokens": texts.tokens,
        }

    def _checked(self) -> dict[str, Any]:
        """A few answers with the log-probability of each token, for comparison with torch; the KV cache starts as
        NaN."""
        rows = min(_CHECKED_ROWS, len(self.prompts))
        decoder = self._decoder(rows, self.plan.least_context)
        decoder.poison()
        texts = TextRows(decoder, self.prompts[:rows], wants_logprobs=True)
        texts.prefill(self.plan.chunk_tokens)
        for _ in range(self.plan.new_tokens - 1):
            texts.decode()
        return {"tokens": texts.tokens, "logprobs": texts.logprobs}

    def _vision(self) -> dict[str, Any]:
        """The features of one image, and how long they take."""
        vision = OrtVision(vision_in(self._folder), self.plan.threads, self.device)
        patches, grid = patches_of(Image.open(self.plan.image).convert("RGB"), self._checkpoint.images)
        arrays = vision_arrays(patches, grid, self._checkpoint.vision.table_side)
        features = vision.encode(arrays)
        times = seconds(lambda: vision.encode(arrays), _VISION_RUNS)
        return {"patches": len(patches), "seconds": median(times), "features": features.tolist()}


def copy_bandwidth(device: Device) -> float:
    """Bytes that the device's memory reads and writes a second while it copies."""
    source, target = device.allocate(_COPIED_BYTES), device.allocate(_COPIED_BYTES)
    device.fill_with_nan(source, _COPIED_BYTES)

    def copy() -> None:
        device.copy(source.address, target.address, (_COPIED_BYTES, _COPIED_BYTES), _COPIED_BYTES, count=1)
        device.wait()

    return 2 * _COPIED_BYTES / min(seconds(copy, _COPIES))


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(Build(Plan.read(Path(sys.argv[1]))).run()), "utf-8")
