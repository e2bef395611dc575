"""How long the engine's steps take here; the simulation and docs/scaling.md use these times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import bare_engine
from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import FULL
from bench.harness import Run, seconds
from bench.load.closed_loop import NEW_TOKENS
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.load.text_rows import decode_step, prefill_step
from bench.records import Row
from bench.simulation.step_times import StepTimes
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.model.config import Checkpoint
from glmserve.model.position_embedding import vision_arrays

_ROWS = (1, 2, 4, 8, 16)
_LENGTHS = (32, 64, 128, 192)
_PROMPT_TOKENS = 128  # behind every decoded row
_CONTEXT = 512
_TOGETHER = {1: 3, 4: 2, 16: 1}
"""Requests at a time, and how often; the best counts."""


def measure(run: Run) -> list[Row]:
    """A row for each precision: the straight lines through the shortest times, and those times themselves.

    Seconds are those of the processor, not of the clock, and the shortest of several, so that other work on the machine
    counts little: they are a step's time with one thread.
    """
    return [run.row(precision=precision, **_measure(run.build(FULL, precision), run)) for precision in PRECISIONS]


def _measure(build: Path, run: Run) -> Row:
    def shortest_s(work: Callable[[], object]) -> float:
        return round(min(seconds(work, run.rounds, time.process_time)), 6)

    checkpoint, preparer = Checkpoint.read(build / CHECKPOINT_FOLDER), Preparer(build)
    maker = QuestionMaker(preparer.tokenizer, seed=5)
    decoder = OrtDecoder(decoder_in(build), checkpoint, _ROWS[-1], _CONTEXT, run.threads)
    prefill = {length: shortest_s(partial(decoder.run, prefill_step(decoder, length))) for length in _LENGTHS}
    decode = {rows: shortest_s(partial(decoder.run, decode_step(decoder, rows, _PROMPT_TOKENS))) for rows in _ROWS}
    (decode_s, row_s), (prefill_s, token_s) = _line_through(decode), _line_through(prefill)
    times = StepTimes(decode_s, row_s, max(0.0, prefill_s), token_s)
    photo = preparer.request(maker.question())
    assert photo.patches is not None
    arrays = vision_arrays(photo.patches, photo.grids[0], checkpoint.vision.table_side)
    vision = OrtVision(vision_in(build), run.threads)
    image_s = shortest_s(lambda: vision.encode(arrays))
    run.say(f"{times}, an image {image_s:.3f} s")
    return {
        "times": {name: round(value, 6) for name, value in asdict(times).items()},
        "image_s": image_s,
        "decode_s": decode,
        "prefill_s": prefill,
        "tokens_per_s": _together(build, run.threads, preparer, maker),
    }


def _line_through(points: dict[int, float]) -> tuple[float, float]:
    """Height at 0 and slope of the straight line that is least off in proportion."""
    at, times = np.array(list(points)), np.array(list(points.values()))
    slope, height = np.polyfit(at, times, 1, w=1 / times)
    return float(height), float(slope)


def _together(build: Path, threads: int, preparer: Preparer, maker: QuestionMaker) -> dict[int, float]:
    """Tokens for each second of processor time, by how many requests the bare engine answers at a time."""
    found = {}
    with bare_engine(build, threads, more={"GLM_ENGINE_DRAFT_TOKENS": "0"}) as engine:
        engine.answer(preparer.request(maker.question(), NEW_TOKENS))
        for count, times in _TOGETHER.items():
            asked = [[preparer.request(question) for question in maker.questions(count)] for _ in range(times)]
            found[count] = round(max(engine.tokens_per_s(requests, time.process_time) for requests in asked), 2)
    return found
