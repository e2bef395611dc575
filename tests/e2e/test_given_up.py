"""Answers may be given up at any moment, the very last one too, and Triton stays whole.

Triton's own cancellation, when it meets an answer's end, frees a call's state twice or never: one in some hundred ended
the server, and others kept it from ending when it was told to.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from serving import triton_on

from gateway.triton.backend import Cancellation, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.errors import Cancelled
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import EXIT_TIMEOUT_S

pytestmark = pytest.mark.triton
ANSWERS = 200
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


def _seconds(backend: TritonBackend) -> float:
    began = time.monotonic()
    assert _answer(backend, Cancellation()) == "complete"
    return time.monotonic() - began


def _answer(backend: TritonBackend, cancellation: Cancellation) -> str:
    ids = np.random.default_rng().integers(10, 200, 30)
    request = GenerateRequest(
        "x", ids, None, (), Sampling(max_tokens=12, temperature=2.0, seed=1), 20.0, cancellation=cancellation
    )
    try:
        list(backend.generate(request))
    except Cancelled:
        return "given up"
    return "complete"
