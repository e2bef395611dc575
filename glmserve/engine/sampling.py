"""Rows of sampling settings as the arrays the decoder graph takes."""

from __future__ import annotations

import numpy as np

from glmserve.engine.request import Sampling
from glmserve.engine.session import SamplerInputs


def sampler_inputs(rows: list[tuple[Sampling, int]], candidates: int) -> SamplerInputs:
    """Arrays for rows of (settings, index of the token to draw).

    A row's random numbers depend on its seed and that index alone, so its tokens do not change with its neighbours.
    """
    count = len(rows)
    inputs = SamplerInputs(
        temperature=np.ones((count, 1), np.float32),
        top_k=np.ones((count, 1), np.int64),
        top_p=np.ones((count, 1), np.float32),
        uniform=np.full((count, candidates), 0.5, np.float32),
    )
    for row, (sampling, index) in enumerate(rows):
        if sampling.temperature <= 0:
            continue  # top_k 1 is greedy
        inputs.temperature[row] = sampling.temperature
        inputs.top_k[row] = min(sampling.top_k or candidates, candidates)
        inputs.top_p[row] = sampling.top_p
        stream = np.random.Generator(np.random.Philox(key=sampling.seed & (2**64 - 1), counter=index))
        inputs.uniform[row] = stream.random(candidates, np.float32)
    return inputs
