"""How fast this machine runs the decoder, measured as the engine starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from glmserve.engine.runtime.constant_arrays import numbered, zeros
from glmserve.engine.runtime.decoder import DecoderSession, Pace, Step
from glmserve.engine.runtime.sampling import GREEDY, sampler_inputs

PROMPT_TOKENS = 32
"""Of the prompt that is read: enough that reading the weights is not what takes the time."""
_TAKES = 3
_ENOUGH_S = 1.0
"""What takes longer is not measured again."""


def measured_pace(session: DecoderSession) -> Pace:
    """Runs a few steps while all rows are empty, on the thread that runs them. The first, which finds weights on the
    disk, does not count."""
    tokens = min(PROMPT_TOKENS, (session.short_tokens or session.context) - 1)
    decode, chunk = _decode(session), _chunk(session, tokens)
    session.run(decode)
    step_s = shortest_s(lambda: session.run(decode))
    return Pace(step_s, shortest_s(lambda: session.run(chunk)) / tokens)


def shortest_s(act: Callable[[], object]) -> float:
    """The shortest of a few times in seconds; one, where that is long."""
    times: list[float] = []
    while len(times) < _TAKES and sum(times) < _ENOUGH_S:
        began = time.monotonic()
        act()
        times.append(time.monotonic() - began)
    return min(times)


def _decode(session: DecoderSession) -> Step:
    sampler = sampler_inputs([GREEDY], session.candidates, session.vocabulary)
    step = Step.drawing(zeros(1), np.zeros((3, 1), np.int64), numbered(1), sampler)
    return replace(step, lengths=np.zeros(1, np.int32))


def _chunk(session: DecoderSession, tokens: int) -> Step:
    sampler = sampler_inputs([GREEDY], session.candidates, session.vocabulary)
    positions = np.repeat(np.arange(tokens)[None], 3, axis=0)
    step = Step.drawing(np.zeros(tokens, np.int64), positions, np.array([tokens - 1]), sampler)
    return replace(step, chunk_lengths=np.zeros(1, np.int32), chunk_new=np.array([tokens], np.int64))
