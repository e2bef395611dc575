"""Rows of sampling settings as the arrays the decoder graph takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glmserve.engine.request import Sampling


@dataclass(frozen=True)
class Draw:
    """What one row's next token depends on beside its logits.

    `index` counts the tokens drawn for this answer before; `seen` i64 holds the ids that a repetition penalty lowers,
    `mask` bool [vocabulary] the tokens a grammar allows, None where there is no grammar.
    """

    sampling: Sampling
    index: int = 0
    seen: np.ndarray | None = None
    mask: np.ndarray | None = None
    wants_logprobs: bool = False


@dataclass(frozen=True)
class SamplerInputs:
    """The sampler's part of `contract.DecoderGraph` for B rows.

    `temperature`, `top_p`, `min_p` f32 [B, 1], `top_k` i64 [B, 1], `uniform` f32 [B, candidates]. The lists of
    extras: `penalty_index` i64 [P, 2] with `penalty` f32 [P], `mask_rows` i64 [R, 1] with `mask` bool [R, vocabulary],
    `logprob_rows` i64 [Q].
    """

    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    min_p: np.ndarray
    uniform: np.ndarray
    penalty_index: np.ndarray
    penalty: np.ndarray
    mask_rows: np.ndarray
    mask: np.ndarray
    logprob_rows: np.ndarray

    @property
    def has_extras(self) -> bool:
        return bool(len(self.penalty) or len(self.mask_rows) or len(self.logprob_rows))


def sampler_inputs(draws: list[Draw], candidates: int, vocabulary: int) -> SamplerInputs:
    """Arrays for rows of draws.

    A row's random numbers depend on its seed and index alone, so its tokens do not change with its neighbours.
    """
    count = len(draws)
    temperature, min_p = np.ones((count, 1), np.float32), np.zeros((count, 1), np.float32)
    top_k, top_p = np.ones((count, 1), np.int64), np.ones((count, 1), np.float32)
    uniform = np.full((count, candidates), 0.5, np.float32)
    for row, draw in enumerate(draws):
        sampling = draw.sampling
        if sampling.temperature <= 0:
            continue  # top_k 1 is greedy
        temperature[row] = sampling.temperature
        top_k[row] = min(sampling.top_k or candidates, candidates)
        top_p[row], min_p[row] = sampling.top_p, sampling.min_p
        stream = np.random.Generator(np.random.Philox(key=sampling.seed & (2**64 - 1), counter=draw.index))
        uniform[row] = stream.random(candidates, np.float32)
    index, penalty = _penalties(draws)
    masks = [(row, draw.mask) for row, draw in enumerate(draws) if draw.mask is not None]
    return SamplerInputs(
        temperature,
        top_k,
        top_p,
        min_p,
        uniform,
        index,
        penalty,
        mask_rows=np.array([[row] for row, _ in masks], np.int64).reshape(-1, 1),
        mask=np.stack([mask for _, mask in masks]) if masks else np.empty((0, vocabulary), np.bool_),
        logprob_rows=np.array([row for row, draw in enumerate(draws) if draw.wants_logprobs], np.int64),
    )


def _penalties(draws: list[Draw]) -> tuple[np.ndarray, np.ndarray]:
    """Index i64 [P, 2] of every logit to penalise, and its row's penalty f32 [P]."""
    seen = [(row, draw.seen, draw.sampling.repetition_penalty) for row, draw in enumerate(draws)]
    parts = [(row, ids, penalty) for row, ids, penalty in seen if ids is not None]
    if not parts:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    rows = np.concatenate([np.full(len(ids), row, np.int64) for row, ids, _ in parts])
    penalties = np.concatenate([np.full(len(ids), penalty, np.float32) for _, ids, penalty in parts])
    return np.stack([rows, np.concatenate([ids for _, ids, _ in parts])], axis=1), penalties
