"""How long the decoder's steps take on this machine, and what the engine makes of them with 1, 4 and 16 requests."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.checkpoints.builds import PRECISIONS
from bench.checkpoints.synthetic import FULL
from bench.harness import Run, seconds
from bench.load.closed_loop import NEW_TOKENS, at_once
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.records import Row, Say
from bench.simulation.step_times import StepTimes
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.engine.request import Prompt, Request, Sequence
from glmserve.engine.runtime.ort_decoder import OrtDecoder, OrtVision
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk
from glmserve.engine.step_builder import step_of
from glmserve.model.config import Checkpoint
from glmserve.model.position_embedding import vision_arrays
from glmserve.sampling_parameters import Sampling

_ROWS = (1, 2, 4, 8, 16)
_LENGTHS = (32, 64, 128, 192)
_PROMPT_TOKENS = 128  # behind every decoded row
_CONTEXT = 512
_TIMES = 5
_TOGETHER = {1: 3, 4: 2, 16: 1}
"""Requests at a time, and how often; the best counts."""


def measure(threads: int, say: Say) -> list[Row]:
    """A row for each precision: the straight lines through the shortest times, and those times themselves.

    Seconds are those of the processor, not of the clock, and the shortest of several, so that other work on the machine
    counts little: they are a step's time where `threads` is 1.
    """
    run = Run(threads, 1, say)
    return [run.row(precision=precision, **_measure(run.build(FULL, precision), run)) for precision in PRECISIONS]


def _measure(build: Path, run: Run) -> Row:
    decoder = _Decoder(build, run.threads)
    prefill = {length: decoder.prefill_s(length) for length in _LENGTHS}
    decode = {count: decoder.decode_s(count) for count in _ROWS}
    image_s = _image_s(build, run.threads)
    decode_s, row_s = _line_through(decode)
    prefill_s, token_s = _line_through(prefill)
    times = StepTimes(decode_s, row_s, max(0.0, prefill_s), token_s)
    together = _together(build, run.threads)
    run.say(f"{times}, an image {image_s:.3f} s, tokens a second {together}")
    return {
        "times": {name: round(value, 6) for name, value in asdict(times).items()},
        "image_s": round(image_s, 6),
        "decode_s": {str(count): round(value, 6) for count, value in decode.items()},
        "prefill_s": {str(length): round(value, 6) for length, value in prefill.items()},
        "tokens_per_s": {str(count): round(value, 2) for count, value in together.items()},
    }


class _Decoder:
    """A build's decoder and the table of its rows, without an engine around them."""

    def __init__(self, build: Path, threads: int) -> None:
        self._checkpoint = Checkpoint.read(build / CHECKPOINT_FOLDER)
        self._session = OrtDecoder(decoder_in(build), self._checkpoint, _ROWS[-1], _CONTEXT, threads)
        self._table = SlotTable(_ROWS[-1], _ROWS[-1])

    def prefill_s(self, length: int) -> float:
        """The shortest time of the prefill of a text prompt; its row is free again afterwards."""
        found = []
        for _ in range(_TIMES):
            running, taken = self._prefill(length)
            found.append(taken)
            self._table.retire(running, keep=False)
        return min(found)

    def decode_s(self, rows: int) -> float:
        """The shortest time of a step of so many rows."""
        while len(self._table.decoding) < rows:
            self._prefill(_PROMPT_TOKENS)
            self._table.promote()
        step = step_of(self._table.decoding, [], self._table, self._session)
        return min(seconds(lambda: self._session.run(step), _TIMES, time.process_time))

    def _prefill(self, length: int) -> tuple[Sequence, float]:
        """A new sequence whose whole prompt is in its row, and the time of that step."""
        running = Sequence(text_request(length), started=0.0)
        self._table.start(running)
        step = step_of([], [Chunk(running, 0, length)], self._table, self._session)
        began = time.process_time()
        sampled = self._session.run(step)
        taken = time.process_time() - began
        running.length = length
        running.answer.append(int(sampled.tokens[0]))
        return running, taken


def _line_through(points: dict[int, float]) -> tuple[float, float]:
    """Height at 0 and slope of the straight line that is least off in proportion."""
    slope, height = np.polyfit(list(points), list(points.values()), 1, w=1 / np.array(list(points.values())))
    return float(height), float(slope)


def _image_s(build: Path, threads: int) -> float:
    """The shortest time of encoding one image as the clients of the other measurements send them."""
    vision = OrtVision(vision_in(build), threads)
    side = Checkpoint.read(build / CHECKPOINT_FOLDER).vision.table_side
    preparer = Preparer(build)
    request = preparer.request(QuestionMaker(preparer.tokenizer, seed=5).question())
    assert request.patches is not None
    arrays = vision_arrays(request.patches, request.grids[0], side)
    return min(seconds(lambda: vision.encode(arrays), _TIMES, time.process_time))


def _together(build: Path, threads: int) -> dict[int, float]:
    """Tokens for each second of processor time, by how many requests the bare engine answers at a time."""
    preparer, found = Preparer(build), {}
    maker = QuestionMaker(preparer.tokenizer, seed=6)
    with bare_engine(build, threads, more={"GLM_ENGINE_DRAFT_TOKENS": "0"}) as engine:
        engine.answer(preparer.request(maker.question(), NEW_TOKENS))
        for count, rounds in _TOGETHER.items():
            found[count] = max(_tokens_per_s(engine, preparer, maker, count) for _ in range(rounds))
    return found


def _tokens_per_s(engine: BareEngine, preparer: Preparer, maker: QuestionMaker, count: int) -> float:
    requests = [preparer.request(maker.question(), NEW_TOKENS) for _ in range(count)]
    began = time.process_time()
    answers = at_once(engine.answer, requests, count)
    return sum(len(answer.tokens) for answer in answers) / (time.process_time() - began)


def text_request(length: int) -> Request:
    """A prompt of random text, like no other."""
    ids = np.random.default_rng().integers(0, 200, length)
    positions = np.broadcast_to(np.arange(length), (3, length))
    prompt = Prompt(ids, positions, delta=0, features=(), image_slot=np.zeros(length, np.int64), keys=ids)
    return Request(prompt, Sampling(max_tokens=_CONTEXT), deadline=float("inf"), emit=lambda _event: None)
