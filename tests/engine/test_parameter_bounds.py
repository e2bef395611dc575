"""What the gateway lets through lies within the engine's bounds, the bounds themselves too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from gateway.schemas.common import AnswerFields
from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import tensors_of
from glmserve.engine.triton.tensors import read_request
from glmserve.errors import InvalidInput
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


def read(penalty: float) -> float:
    """The penalty that the engine makes of the gateway's."""
    request = GenerateRequest("x", np.ones(1, np.int64), None, (), Sampling(repetition_penalty=penalty), 1.0)
    tensors = {tensor.name: values for tensor, values in tensors_of(request)}
    return read_request(tensors, Checkpoint.read(DEMO)).sampling.repetition_penalty


@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
def test_a_penalty_at_its_bound_is_taken(penalty: float) -> None:
    AnswerFields.model_validate({"repetition_penalty": penalty})
    assert read(penalty) == pytest.approx(penalty)


@pytest.mark.parametrize("penalty", [0.005, 10.5])
def test_a_penalty_beyond_its_bound_is_refused_by_both(penalty: float) -> None:
    with pytest.raises(ValidationError):
        AnswerFields.model_validate({"repetition_penalty": penalty})
    with pytest.raises(InvalidInput, match="repetition_penalty"):
        read(penalty)
