"""A real tritonserver asked over plain HTTP: the wrapper gets the whole answer from its decoupled neighbour."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gateway.triton.backend import GenerateRequest
from gateway.triton.http_client import TritonHttpBackend
from glmserve.contract import Finish
from glmserve.errors import Overloaded
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import TritonServer

pytestmark = pytest.mark.triton
CROWD, CROWDS, TOKENS = 16, 100, 60


def a_request(max_tokens: int = TOKENS, seed: int = 0) -> GenerateRequest:
    return GenerateRequest(
        "r1", np.arange(4, dtype=np.int64), None, (), Sampling(max_tokens=max_tokens, seed=seed), 20.0
    )


@pytest.fixture
def backend(triton: TritonServer) -> TritonHttpBackend:
    return TritonHttpBackend(triton.http_url)


def test_all_three_models_are_ready(backend: TritonHttpBackend) -> None:
    assert backend.models_ready()


def test_an_answer_comes_in_one_piece(backend: TritonHttpBackend) -> None:
    (chunk,) = backend.generate(a_request())
    assert chunk.tokens == tuple(range(300, 300 + TOKENS)) and chunk.finish == Finish.STOP


def test_answers_are_generated_together_and_not_one_after_another(backend: TritonHttpBackend) -> None:
    began = time.monotonic()
    list(backend.generate(a_request()))
    alone_s = time.monotonic() - began
    with ThreadPoolExecutor(CROWD) as pool:
        began = time.monotonic()
        counts = list(pool.map(lambda _: len(next(iter(backend.generate(a_request()))).tokens), range(CROWD)))
    assert counts == [TOKENS] * CROWD
    assert time.monotonic() - began < CROWD / 2 * alone_s


def test_crowd_after_crowd_leaves_it_alive(backend: TritonHttpBackend) -> None:
    with ThreadPoolExecutor(CROWD) as pool:
        for _ in range(CROWDS):
            answers = pool.map(lambda seed: next(iter(backend.generate(a_request(4, seed)))), range(3, 3 + CROWD))
            assert all(len(answer.tokens) == 4 for answer in answers)


def test_an_error_of_the_engine_arrives_as_itself(backend: TritonHttpBackend) -> None:
    with pytest.raises(Overloaded, match="Every place is taken"):
        list(backend.generate(a_request(seed=2)))
