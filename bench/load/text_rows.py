"""Rows of text on the engine's decoder, whose steps are built as the engine builds them, without the engine."""

from __future__ import annotations

import time

import numpy as np

from glmserve.engine.request import Prompt, Request, Sequence
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk
from glmserve.engine.step_builder import step_of
from glmserve.sampling_parameters import Sampling

_ANY_IDS = 200


class TextRows:
    """One row for each of the prompts i64 [rows, tokens]; answers are greedy. `tokens` are each row's answer, and
    `logprobs` their log-probabilities where these are wanted."""

    def __init__(self, decoder: OrtDecoder, prompts: np.ndarray, wants_logprobs: bool = False) -> None:
        self._decoder = decoder
        sampling = Sampling(logprobs=wants_logprobs)
        self._rows = [Sequence(text_request(ids, sampling), 0.0, row) for row, ids in enumerate(prompts)]
        self.tokens = [sequence.answer for sequence in self._rows]
        self.logprobs: list[list[float]] = [[] for _ in self._rows]

    def prefill(self, chunk_tokens: int) -> None:
        """One prompt after another in chunks, and the first token of each."""
        for row, sequence in enumerate(self._rows):
            length = sequence.request.prompt.length
            for start in range(0, length, chunk_tokens):
                chunk = Chunk(sequence, start, min(start + chunk_tokens, length))
                sampled = self._decoder.run(_step(self._decoder, [], [chunk]))
            sequence.length = length
            self._note(row, sampled, 0)

    def decode(self) -> float:
        """The next token of every row; returns the seconds that the decoder took."""
        step = _step(self._decoder, self._rows, [])
        began = time.perf_counter()
        sampled = self._decoder.run(step)
        taken_s = time.perf_counter() - began
        for row, sequence in enumerate(self._rows):
            sequence.length += 1
            self._note(row, sampled, row)
        return taken_s

    def _note(self, row: int, sampled: Sampled, at: int) -> None:
        self.tokens[row].append(int(sampled.tokens[at]))
        if len(sampled.logprob_values):
            self.logprobs[row].append(float(sampled.logprob_values[at][0]))


def decode_step(decoder: OrtDecoder, rows: int, length: int) -> Step:
    """The next token of so many rows, each of which is taken to hold so many tokens."""
    running = [Sequence(any_text(length), 0.0, row, length, answer=[0]) for row in range(rows)]
    return _step(decoder, running, [])


def prefill_step(decoder: OrtDecoder, length: int) -> Step:
    """A prompt of so many tokens in one chunk."""
    return _step(decoder, [], [Chunk(Sequence(any_text(length), 0.0, row=0), 0, length)])


def any_text(length: int) -> Request:
    """A prompt like no other."""
    return text_request(np.random.default_rng().integers(0, _ANY_IDS, length), Sampling())


def text_request(ids: np.ndarray, sampling: Sampling) -> Request:
    """A prompt of these tokens i64 [tokens]."""
    positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
    prompt = Prompt(ids, positions, delta=0, features=(), image_slot=np.zeros(len(ids), np.int64), keys=ids)
    return Request(prompt, sampling, deadline=float("inf"), emit=lambda _event: None)


def _step(decoder: OrtDecoder, rows: list[Sequence], chunks: list[Chunk]) -> Step:
    return step_of(rows, chunks, SlotTable(decoder.rows, decoder.rows), decoder)
