"""Runs a build on the device without a GPU and tells how the device was used: `python -m tests.cuda.rehearsal BUILD
[NUMBER]`, the number being the device's.

Prints JSON. What kernels would compute is not known, so answers are as long as they were asked for and say nothing.
"""

from __future__ import annotations

import ctypes
import json
import queue
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.engine import Engine
from glmserve.engine.preprocessor import prompt_arrays
from glmserve.engine.request import Event, Failed, Prompt, Request
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.runtime.sampling import filled
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import vision_arrays
from glmserve.sampling_parameters import Sampling

_BUCKETS = (1, 2, 4, 8)
_CONTEXT = 256
_GRID = Grid(8, 12)
_NEW_TOKENS = 12
_WAIT_S = 60.0


@dataclass(frozen=True)
class Counts:
    """What the runtime has seen, in the order of `fake_counts`."""

    launches: int
    to_device: int
    to_host: int
    on_device: int
    allocations: int
    bytes: int
    graphs: int
    graph_launches: int

    def since(self, before: Counts) -> dict[str, int]:
        return {name: value - getattr(before, name) for name, value in asdict(self).items()}


class Runtime:
    """The fake runtime's own words."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcudart.so.13")
        self._library.fake_faults.restype = ctypes.c_char_p

    def counts(self) -> Counts:
        values = (ctypes.c_long * len(fields(Counts)))()
        self._library.fake_counts(values)
        return Counts(*values)

    def break_down(self) -> None:
        """Makes every kernel, graph and wait fail from now on."""
        self._library.fake_break()

    def refuse_captures(self) -> None:
        """Lets no graph be captured from now on."""
        self._library.fake_refuse_captures()

    def faults(self) -> list[str]:
        return self._library.fake_faults().decode("ascii").splitlines()  # type: ignore[no-any-return]


class WatchedDecoder:
    """The engine's decoder, with each step's use of the device on record."""

    def __init__(self, decoder: OrtDecoder, runtime: Runtime) -> None:
        self.rows, self.context = decoder.rows, decoder.context
        self.short_rows, self.short_tokens = decoder.short_rows, decoder.short_tokens
        self.candidates, self.vocabulary = decoder.candidates, decoder.vocabulary
        self.steps: list[dict[str, Any]] = []
        self.warm_ups: list[dict[str, int]] = []
        self._decoder = decoder
        self._runtime = runtime

    def warm_up(self) -> None:
        before = self._runtime.counts()
        self._decoder.warm_up()
        self.warm_ups.append(self._runtime.counts().since(before))

    def run(self, step: Step) -> Sampled:
        before = self._runtime.counts()
        sampled = self._decoder.run(step)
        used = self._runtime.counts().since(before)
        facts = {
            "is_decode": step.is_decode,
            "first_decoded": step.first_decoded,
            "beside": step.beside,
            "has_extras": any(step.sampler.extras),
            "sizes": [next(n for n in _BUCKETS if n >= step.decoded), *filled(step.sampler).extras],
            "wants_logprobs": bool(len(step.sampler.logprob_rows)),
        }
        self.steps.append(facts | used)
        return sampled

    def move(self, source: int, target: int, length: int) -> None:
        self._decoder.move(source, target, length)


def run(folder: Path, number: int) -> dict[str, Any]:
    """How the build at `folder` uses a device: steps of the engine under a few requests, and one image."""
    device, runtime = open_device("cuda", number), Runtime()
    checkpoint, rows = Checkpoint.read(folder / CHECKPOINT_FOLDER), max(_BUCKETS)
    decoder = OrtDecoder(decoder_in(folder), checkpoint, rows, _CONTEXT, 1, device, buckets=_BUCKETS)
    vision = OrtVision(vision_in(folder), 1, device)
    features, image = _encode(vision, checkpoint, runtime)
    watched = WatchedDecoder(decoder, runtime)
    decoder.poison()
    endings = answer(watched, checkpoint, features, [Sampling(), Sampling(temperature=0.7, top_p=0.9)])
    with_extras = [Sampling(), Sampling(repetition_penalty=1.1)]
    endings += answer(watched, checkpoint, features, with_extras, draft_tokens=4, top_logprobs=2)
    return {
        "captures_graphs": decoder.captures_graphs,
        "picture": image,
        "warm_ups": watched.warm_ups,
        "endings": endings,
        "steps": watched.steps,
        "faults": runtime.faults(),
    }


def _encode(vision: OrtVision, checkpoint: Checkpoint, runtime: Runtime) -> tuple[np.ndarray, dict[str, int]]:
    """An image's features and what the second image of its size cost."""
    patches = np.zeros((_GRID.patches, checkpoint.images.patch_bytes), np.uint8)
    arrays = vision_arrays(patches, _GRID, checkpoint.vision.table_side)
    vision.encode(arrays)
    before = runtime.counts()
    return vision.encode(arrays), runtime.counts().since(before)


def answer(
    decoder: WatchedDecoder,
    checkpoint: Checkpoint,
    features: np.ndarray | None,
    samplings: list[Sampling],
    draft_tokens: int = 0,
    top_logprobs: int | None = None,
) -> list[str]:
    """How requests that end one after another ended, every second one with an image; the first lists `top_logprobs`."""
    slots = decoder.short_rows or decoder.rows
    engine = Engine(decoder, checkpoint.eos_token_ids, slots, chunk_tokens=64, draft_tokens=draft_tokens)
    engine.start()
    heard = []
    for number in range(slots):
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        heard.append(events)
        engine.submit(
            Request(
                prompt=_prompt(checkpoint, number, features if number % 2 else None),
                sampling=replace(
                    samplings[number % len(samplings)],
                    max_tokens=_NEW_TOKENS + number,
                    logprobs=not number and top_logprobs is not None,
                    top_logprobs=0 if number else top_logprobs or 0,
                ),
                deadline=time.monotonic() + _WAIT_S,
                emit=events.put,
                is_cancelled=lambda: False,
            )
        )
    endings = [ending(events) for events in heard]
    engine.stop()
    return endings


def _prompt(checkpoint: Checkpoint, number: int, features: np.ndarray | None) -> Prompt:
    images = [] if features is None else [features]
    text = np.arange(20 + 5 * number) % 100 + 300
    shown = np.full(sum(map(len, images)), checkpoint.image_token_id)
    keys = [number.to_bytes(32, "little") for _ in images]
    return prompt_arrays(checkpoint, np.concatenate([text[:3], shown, text[3:]]), [_GRID][: len(keys)], images, keys)


def ending(events: queue.SimpleQueue[Event]) -> str:
    """How a request ended whose events come here; raises Empty when it does not."""
    while not (event := events.get(timeout=_WAIT_S)).is_last:
        pass
    return f"failed: {event.error.code}" if isinstance(event, Failed) else "done"


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
