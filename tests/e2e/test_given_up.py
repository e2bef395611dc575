"""Answers may be given up at any moment, the very last one too, and Triton stays whole.

Triton's own cancellation, when it meets an answer's end, frees a call's state twice or never: one in some hundred ended
the server, and others kept it from ending when it was told to. To be asked about a call whose last response is being
sent ends the server too; that took a crowd, some of whom wait for a slot.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from serving import triton_on

from gateway.triton.backend import Cancellation, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.http_client import TritonHttpBackend
from glmserve.errors import Cancelled, Overloaded
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import EXIT_TIMEOUT_S

pytestmark = pytest.mark.triton
ANSWERS = 200
CROWD, CROWD_S, CROWD_WITHIN_S = 32, 10.0, 0.3
WITHIN = 1.5
"""Of an answer's time, when it is given up at the latest."""


def test_answers_given_up_at_any_moment_leave_triton_whole(demo_build: Path) -> None:
    chance = random.Random(1)
    seen = {"given up": 0, "complete": 0}
    with triton_on(demo_build) as triton:
        with closing(TritonBackend(triton.grpc_url, 10.0)) as backend:
            usual_s = median(_seconds(backend) for _ in range(9))
            for _ in range(ANSWERS):
                cancellation = Cancellation()
                timer = threading.Timer(chance.uniform(0, WITHIN * usual_s), cancellation.cancel)
                timer.start()
                seen[_answer(backend, cancellation)] += 1
                timer.join()
            assert _answer(backend, Cancellation()) == "complete"
        began = time.monotonic()
        triton.stop()
        assert time.monotonic() - began < EXIT_TIMEOUT_S - 2, "it waited for answers that had ended"
    assert min(seen.values()) > ANSWERS / 20, f"hardly any met the other's end: {seen}"


@pytest.mark.parametrize("transport", ["gRPC", "HTTP"])
def test_a_crowd_that_gives_up_before_its_turn_leaves_triton_whole(demo_build: Path, transport: str) -> None:
    with triton_on(demo_build) as triton:
        with closing(
            TritonBackend(triton.grpc_url, 10.0) if transport == "gRPC" else TritonHttpBackend(triton.http_url)
        ) as backend:
            until = time.monotonic() + CROWD_S
            with ThreadPoolExecutor(CROWD) as crowd:
                seen = set().union(*crowd.map(lambda seed: _visit(backend, seed, until), range(CROWD)))
            assert {"given up", "complete"} <= seen and _answer(backend, Cancellation()) == "complete"
            assert triton.exit_code() is None
        began = time.monotonic()
        triton.stop()
        assert time.monotonic() - began < EXIT_TIMEOUT_S - 2, "it waited for answers that had ended"


def _visit(backend: TritonBackend | TritonHttpBackend, seed: int, until: float) -> set[str]:
    chance, seen = random.Random(seed), set()
    while time.monotonic() < until:
        cancellation = Cancellation()
        timer = threading.Timer(chance.uniform(0, CROWD_WITHIN_S), cancellation.cancel)
        timer.start()
        try:
            seen.add(_answer(backend, cancellation, max_tokens=2))
        except Overloaded:  # as it may be: nobody has left early enough
            seen.add("refused")
        timer.cancel()
    return seen


def _seconds(backend: TritonBackend) -> float:
    began = time.monotonic()
    assert _answer(backend, Cancellation()) == "complete"
    return time.monotonic() - began


def _answer(backend: TritonBackend | TritonHttpBackend, cancellation: Cancellation, max_tokens: int = 12) -> str:
    ids = np.random.default_rng().integers(10, 200, 30)
    request = GenerateRequest(
        "x", ids, None, (), Sampling(max_tokens=max_tokens, temperature=2.0, seed=1), 20.0, cancellation=cancellation
    )
    try:
        list(backend.generate(request))
    except Cancelled:
        return "given up"
    return "complete"
