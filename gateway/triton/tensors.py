"""A request as the tensors of the contract, and tensors that come back as a message of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.triton.backend import Chunk, GenerateRequest, Ranked
from glmserve import contract
from glmserve.contract import Finish, Tensor
from glmserve.errors import GlmServeError
from glmserve.sampling_parameters import PARAMETERS

_OUTPUTS = (contract.TOKENS, contract.FINISH, contract.TIMINGS_MS, contract.CACHED_TOKENS)
_LOGPROB_OUTPUTS = (contract.LOGPROB_IDS, contract.LOGPROB_VALUES)


def tensors_of(request: GenerateRequest) -> list[tuple[Tensor, NDArray[Any]]]:
    """What the contract demands, and of the optional tensors those that say anything; contiguous, of its types."""
    tensors: list[tuple[Tensor, Any]] = [(contract.INPUT_IDS, request.input_ids)]
    if request.patches is not None:
        tensors += [(contract.PATCHES, request.patches)]
        tensors += [(contract.GRIDS, [[grid.rows, grid.columns] for grid in request.grids])]  # [images, 2]
    sampling = request.sampling
    for parameter in PARAMETERS:
        value = getattr(sampling, parameter.name)
        if not parameter.is_optional or value != parameter.default:
            tensors.append((contract.SAMPLING_INPUTS[parameter.name], [value]))
    if sampling.stop_token_ids:
        tensors.append((contract.STOP_TOKEN_IDS, sampling.stop_token_ids))
    tensors.append((contract.DEADLINE_MS, [max(1, int(request.deadline_s * 1000))]))
    if request.cache_scope:
        tensors.append((contract.CACHE_SCOPE, [request.cache_scope]))
    if request.grammar:
        tensors.append((contract.GRAMMAR, np.frombuffer(request.grammar, np.uint8)))
    return [(tensor, np.ascontiguousarray(values, tensor.dtype)) for tensor, values in tensors]


def outputs_of(request: GenerateRequest) -> tuple[Tensor, ...]:
    """What a request wants back."""
    return _OUTPUTS + (_LOGPROB_OUTPUTS if request.sampling.logprobs else ())


def chunk_of(raw: Mapping[str, bytes | NDArray[Any]]) -> Chunk:
    """The message in these tensors; raises GlmServeError when they are of another contract."""
    try:
        tokens = tuple(np.frombuffer(raw[contract.TOKENS.name], contract.TOKENS.dtype).tolist())
        logprobs = _logprobs(raw, len(tokens))
        if contract.FINISH.name not in raw:
            return Chunk(tokens, Finish.RUNNING, logprobs=logprobs)
        finish, timings, cached = (
            np.frombuffer(raw[t.name], t.dtype) for t in (contract.FINISH, contract.TIMINGS_MS, contract.CACHED_TOKENS)
        )
        return Chunk(tokens, Finish(int(finish[0])), tuple(timings.tolist()), int(cached[0]), logprobs)
    except (KeyError, ValueError, IndexError) as error:
        raise GlmServeError from error


def _logprobs(raw: Mapping[str, bytes | NDArray[Any]], tokens: int) -> tuple[Ranked, ...]:
    if contract.LOGPROB_IDS.name not in raw or not tokens:
        return ()
    ids, values = (np.frombuffer(raw[t.name], t.dtype).reshape(tokens, -1).tolist() for t in _LOGPROB_OUTPUTS)
    return tuple(tuple(zip(*row, strict=True)) for row in zip(ids, values, strict=True))
