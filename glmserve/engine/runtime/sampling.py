"""Rows of sampling settings as the arrays the decoder graph takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from glmserve.contract import DecoderGraph
from glmserve.engine.logit_edits import Edits
from glmserve.engine.runtime.constant_arrays import closed, numbered, zeros
from glmserve.sampling_parameters import GRAPH_PARAMETERS, Sampling

_TOKENS = 16
"""Tokens whose random numbers are made together: a generator costs as much as hundreds of its numbers."""
_BLOCKS = 1024
_EDITS = 1024
"""Edited logits in the smallest of a captured graph's sizes; each further one has eight times as many."""
_LEAST = np.float32(2**-25)
"""Half of the least number that a generator gives beside 0, whose logarithm is none."""
_LEAST_TEMPERATURE = 1e-6
"""Below, the likeliest token is drawn anyway, and logits over it would fall under what marks a token as excluded."""


@dataclass(frozen=True)
class Draw:
    """What one row's next token depends on beside its logits.

    `index` counts the tokens drawn for this answer before; `mask` bool [vocabulary] holds the tokens that may be drawn,
    None where all may.
    """

    sampling: Sampling
    index: int = 0
    edits: Edits | None = None
    mask: np.ndarray | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, and nothing else is wanted."""
        sampling = self.sampling
        return sampling.temperature <= 0 and self.edits is None and self.mask is None and not sampling.logprobs


GREEDY = Draw(Sampling())
"""Stands for every row that is greedy."""


@dataclass(frozen=True)
class SamplerInputs:
    """The sampler's part of `contract.DecoderGraph` for B rows.

    `parameters` [B, 1] of each of GRAPH_PARAMETERS by its name, `uniform` f32 [B, candidates]. The lists of extras:
    `edit_index` i64 [P, 2] with `penalty` and `bias` f32 [P], `mask_rows` i64 [R, 1] with `mask` bool [R, vocabulary],
    `logprob_rows` i64 [Q].
    """

    parameters: dict[str, np.ndarray]
    uniform: np.ndarray
    edit_index: np.ndarray
    penalty: np.ndarray
    bias: np.ndarray
    mask_rows: np.ndarray
    mask: np.ndarray
    logprob_rows: np.ndarray

    @property
    def extras(self) -> tuple[int, int, int]:
        """The lengths P, R and Q of the lists of extras."""
        return len(self.penalty), len(self.mask_rows), len(self.logprob_rows)

    def by_input(self) -> dict[str, np.ndarray]:
        """Every array by the name of the graph's input."""
        return {
            **self.parameters,
            DecoderGraph.UNIFORM: self.uniform,
            DecoderGraph.EDIT_INDEX: self.edit_index,
            DecoderGraph.PENALTY: self.penalty,
            DecoderGraph.BIAS: self.bias,
            DecoderGraph.MASK_ROWS: self.mask_rows,
            DecoderGraph.MASK: self.mask,
            DecoderGraph.LOGPROB_ROWS: self.logprob_rows,
        }


def sampler_inputs(draws: list[Draw], candidates: int, vocabulary: int) -> SamplerInputs:
    """Arrays for rows of draws; those of greedy rows are shared and may not be written to.

    A row's random numbers depend on its seed and index alone, so its tokens do not change with its neighbours.
    """
    if all(draw.is_greedy for draw in draws):
        return _greedy(len(draws), candidates, vocabulary)
    return _drawn(draws, candidates, vocabulary)


def padded(inputs: SamplerInputs, more: int) -> SamplerInputs:
    """The same with `more` rows below, of settings that any row may have: the first row's."""
    count, candidates = inputs.uniform.shape
    vocabulary = inputs.mask.shape[1]
    if inputs is _greedy(count, candidates, vocabulary):
        return _greedy(count + more, candidates, vocabulary)
    rows = np.concatenate([numbered(count), zeros(more)])
    parameters = {name: array[rows] for name, array in inputs.parameters.items()}
    return replace(inputs, parameters=parameters, uniform=inputs.uniform[rows])


def filled(inputs: SamplerInputs) -> SamplerInputs:
    """The same with lists of extras of few different lengths, their last entries repeated: a captured graph's lengths
    are fixed. What is written twice is the same, and what is listed twice stands at the end."""
    edits, masks, logprobs = inputs.extras
    if not any(inputs.extras):
        return inputs
    size = _EDITS if edits else 0
    while size < edits:
        size *= 8
    return replace(
        inputs,
        edit_index=_repeated(inputs.edit_index, size),
        penalty=_repeated(inputs.penalty, size),
        bias=_repeated(inputs.bias, size),
        mask_rows=_repeated(inputs.mask_rows, _power_of_two(masks)),
        mask=_repeated(inputs.mask, _power_of_two(masks)),
        logprob_rows=_repeated(inputs.logprob_rows, _power_of_two(logprobs)),
    )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length() if count else 0


def _repeated(array: np.ndarray, count: int) -> np.ndarray:
    """`count` entries, the last one of the array as often as it takes."""
    missing = count - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


@lru_cache
def _greedy(count: int, candidates: int, vocabulary: int) -> SamplerInputs:
    inputs = _drawn([GREEDY] * count, candidates, vocabulary)
    for array in inputs.by_input().values():
        closed(array)
    return inputs


def _drawn(draws: list[Draw], candidates: int, vocabulary: int) -> SamplerInputs:
    likeliest = Sampling(temperature=1, top_k=1)  # what greedy is to the graph
    settings = [draw.sampling if draw.sampling.temperature > 0 else likeliest for draw in draws]
    uniform = np.empty((len(draws), candidates), np.float32)
    for row, (draw, sampling) in enumerate(zip(draws, settings, strict=True)):
        if sampling is likeliest:
            uniform[row] = 0.5
        else:
            uniform[row] = _numbers(sampling.seed, draw.index // _TOKENS, candidates)[draw.index % _TOKENS]
    index, penalty, bias = _edits(draws)
    masks = [(row, draw.mask) for row, draw in enumerate(draws) if draw.mask is not None]
    return SamplerInputs(
        parameters=_parameters(settings, candidates),
        uniform=uniform,
        edit_index=index,
        penalty=penalty,
        bias=bias,
        mask_rows=np.array([[row] for row, _ in masks], np.int64).reshape(-1, 1),
        mask=np.stack([mask for _, mask in masks]) if masks else np.empty((0, vocabulary), np.bool_),
        logprob_rows=np.array([row for row, draw in enumerate(draws) if draw.sampling.logprobs], np.int64),
    )


def _parameters(settings: list[Sampling], candidates: int) -> dict[str, np.ndarray]:
    """Each of GRAPH_PARAMETERS as the graph takes it, [B, 1]."""
    values = {entry.name: [getattr(sampling, entry.name) for sampling in settings] for entry in GRAPH_PARAMETERS}
    values["temperature"] = [max(temperature, _LEAST_TEMPERATURE) for temperature in values["temperature"]]
    values["top_k"] = [min(top_k or candidates, candidates) for top_k in values["top_k"]]
    return {entry.name: np.array(values[entry.name], entry.graph_dtype)[:, None] for entry in GRAPH_PARAMETERS}


@lru_cache(_BLOCKS)
def _numbers(seed: int, block: int, candidates: int) -> np.ndarray:
    """f32 in (0, 1) [_TOKENS, candidates] for some tokens of a seed; blocks begin 2^64 numbers apart and share none."""
    stream = np.random.Generator(np.random.Philox(key=seed & (2**64 - 1), counter=block << 64))
    return np.maximum(stream.random((_TOKENS, candidates), np.float32), _LEAST)


def _edits(draws: list[Draw]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index i64 [P, 2] of every logit to edit, with its penalty and its bias f32 [P]."""
    parts = [(row, draw.edits) for row, draw in enumerate(draws) if draw.edits is not None]
    if not parts:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, np.float32)
    rows = np.concatenate([np.full(len(edits.tokens), row, np.int64) for row, edits in parts])
    tokens = np.concatenate([edits.tokens for _, edits in parts])
    penalty = np.concatenate([edits.penalty for _, edits in parts])
    return np.stack([rows, tokens], axis=1), penalty, np.concatenate([edits.bias for _, edits in parts])
