"""A request as the tensors of the contract, and tensors that come back as a message of an answer."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.triton.backend import Chunk, GenerateRequest, Ranked
from glmserve import contract
from glmserve.contract import Finish, Tensor
from glmserve.errors import GlmServeError
from glmserve.sampling_parameters import PARAMETERS, Sampling

_KEY_BITS = 63  # of an int64 that is not negative
_OUTPUTS = (contract.TOKENS, contract.FINISH, contract.TIMINGS_MS, contract.CACHED_TOKENS)
_LOGPROB_OUTPUTS = (contract.LOGPROB_IDS, contract.LOGPROB_VALUES)


def tensors_of(request: GenerateRequest) -> list[tuple[Tensor, NDArray[Any]]]:
    """What the contract demands, and of the optional tensors those that say anything; contiguous, of its types."""
    tensors: list[tuple[Tensor, Any]] = [(contract.INPUT_IDS, request.input_ids)]
    if request.patches is not None:
        tensors += [(contract.PATCHES, request.patches)]
        tensors += [(contract.GRIDS, [[grid.rows, grid.columns] for grid in request.grids])]  # [images, 2]
        if any(grid.frames > 1 for grid in request.grids):
            tensors += [(contract.FRAMES, [grid.frames for grid in request.grids])]
    sampling = request.sampling
    for parameter in PARAMETERS:
        value = getattr(sampling, parameter.name)
        if not parameter.is_optional or value != parameter.default:
            tensors.append((contract.SAMPLING_INPUTS[parameter.name], [value]))
    tensors += _lists(sampling)
    if request.answers != 1:
        tensors.append((contract.ANSWERS, [request.answers]))
    tensors.append((contract.DEADLINE_MS, [max(1, int(request.deadline_s * 1000))]))
    if request.cache_scope:
        tensors.append((contract.CACHE_SCOPE, [request.cache_scope]))
    if request.cache_salt:
        tensors.append((contract.CACHE_SALT, [request.cache_salt]))
    if request.grammar:
        tensors.append((contract.GRAMMAR, np.frombuffer(request.grammar, np.uint8)))
    return [(tensor, np.ascontiguousarray(values, tensor.dtype)) for tensor, values in tensors]


def new_key() -> int:
    """A key that nobody guesses, who might cancel what is not his."""
    return secrets.randbits(_KEY_BITS)


def keyed_tensors(request: GenerateRequest, key: int) -> list[tuple[Tensor, NDArray[Any]]]:
    """The tensors of a request that `cancelling_tensors` of the same key cancel."""
    return [*tensors_of(request), (contract.CANCEL_KEY, np.array([key], np.int64))]


def cancelling_tensors(*keys: int) -> list[tuple[Tensor, NDArray[Any]]]:
    """A request that cancels others; Triton demands every tensor that is not optional."""
    needed = [tensor for tensor in contract.DECODER_INPUTS if not tensor.is_optional]
    nothing = [(tensor, np.zeros(1, tensor.dtype)) for tensor in needed]  # the shape of them all
    return [*nothing, (contract.CANCEL, np.array(keys, np.int64))]


def _lists(sampling: Sampling) -> list[tuple[Tensor, Any]]:
    tensors: list[tuple[Tensor, Any]] = []
    if sampling.stop_token_ids:
        tensors.append((contract.STOP_TOKEN_IDS, sampling.stop_token_ids))
    if sampling.logit_bias:
        tensors.append((contract.BIASED_TOKEN_IDS, [token for token, _ in sampling.logit_bias]))
        tensors.append((contract.LOGIT_BIAS, [bias for _, bias in sampling.logit_bias]))
    if sampling.bad_words:
        longest = max(map(len, sampling.bad_words))
        tensors.append((contract.BAD_WORDS, [[*word, *[-1] * (longest - len(word))] for word in sampling.bad_words]))
    if sampling.allowed_token_ids:
        tensors.append((contract.ALLOWED_TOKEN_IDS, sampling.allowed_token_ids))
    return tensors


def outputs_of(request: GenerateRequest) -> tuple[Tensor, ...]:
    """What a request wants back."""
    choices = (contract.CHOICES,) if request.answers > 1 else ()
    stops = (contract.STOP_TOKENS,) if request.sampling.stop_token_ids else ()
    return _OUTPUTS + choices + stops + (_LOGPROB_OUTPUTS if request.sampling.logprobs else ())


def chunk_of(raw: Mapping[str, bytes | NDArray[Any]]) -> Chunk:
    """The message in these tensors; raises GlmServeError when they are of another contract."""
    try:
        tokens = _values(raw, contract.TOKENS)
        choices = _values(raw, contract.CHOICES) if contract.CHOICES.name in raw else ()
        logprobs = _logprobs(raw, len(tokens))
        if contract.FINISH.name not in raw:
            return Chunk(tokens, Finish.RUNNING, logprobs=logprobs, choices=choices)
        finishes = tuple(map(Finish, _values(raw, contract.FINISH)))
        if Finish.RUNNING in finishes:
            return Chunk(tokens, Finish.RUNNING, logprobs=logprobs, choices=choices, finishes=finishes)
        timings, cached = _values(raw, contract.TIMINGS_MS), _values(raw, contract.CACHED_TOKENS)
        stops = _values(raw, contract.STOP_TOKENS) if contract.STOP_TOKENS.name in raw else ()
        return Chunk(tokens, finishes[0], timings, cached[0], logprobs, choices, finishes, stops)
    except (KeyError, ValueError, IndexError) as error:
        raise GlmServeError from error


def _values(raw: Mapping[str, bytes | NDArray[Any]], tensor: Tensor) -> tuple[Any, ...]:
    return tuple(np.frombuffer(raw[tensor.name], tensor.dtype).tolist())


def _logprobs(raw: Mapping[str, bytes | NDArray[Any]], tokens: int) -> tuple[Ranked, ...]:
    if contract.LOGPROB_IDS.name not in raw or not tokens:
        return ()
    ids, values = (np.frombuffer(raw[t.name], t.dtype).reshape(tokens, -1).tolist() for t in _LOGPROB_OUTPUTS)
    return tuple(tuple(zip(*row, strict=True)) for row in zip(ids, values, strict=True))
