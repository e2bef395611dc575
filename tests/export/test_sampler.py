"""The sampler in the graph draws what the settings say, from the distribution they leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.graph import GraphWriter, declare, graph_input
from export.sampler import sample
from export.weights import Weights
from glmserve.engine.request import Sampling
from glmserve.engine.sampling import sampler_inputs
from glmserve.limits import SAMPLER_CANDIDATES

VOCABULARY = 200
LOGITS = np.random.default_rng(1).normal(0, 2, VOCABULARY).astype(np.float32)
DRAWS = 4000


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    g = GraphWriter(Weights(Path(), {}))
    logits = graph_input("logits", ir.DataType.FLOAT, ["B", VOCABULARY])
    inputs, token = sample(g, logits, VOCABULARY)
    declare(token, "token", ir.DataType.INT64, ["B", 1])
    model = g.model("sampler", [logits, *inputs], [token])
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def _draw(session: ort.InferenceSession, sampling: Sampling, draws: int = DRAWS) -> np.ndarray:
    rows = sampler_inputs([(sampling, index) for index in range(draws)], SAMPLER_CANDIDATES)
    feeds = {name: getattr(rows, name) for name in ("temperature", "top_k", "top_p", "uniform")}
    return session.run(["token"], {"logits": np.tile(LOGITS, (draws, 1)), **feeds})[0][:, 0]


def _expected(temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities by the plain definition: cut to the top k, then to the smallest set that holds top_p."""
    order = np.argsort(-LOGITS)[: min(top_k or SAMPLER_CANDIDATES, SAMPLER_CANDIDATES)]
    p = np.exp((LOGITS[order] - LOGITS[order[0]]) / temperature)
    p /= p.sum()
    kept = order[: int(np.searchsorted(np.cumsum(p), top_p)) + 1]
    wanted = np.zeros(VOCABULARY)
    wanted[kept] = p[: len(kept)] / p[: len(kept)].sum()
    return wanted


def test_temperature_zero_is_the_likeliest_token(session: ort.InferenceSession) -> None:
    assert (_draw(session, Sampling(temperature=0.0, seed=3), 50) == LOGITS.argmax()).all()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.6), (1.3, 8, 0.8), (2.0, 1, 1.0), (1.0, 0, 0.01)],
)
def test_frequencies_match_the_distribution(
    session: ort.InferenceSession, temperature: float, top_k: int, top_p: float
) -> None:
    found = np.bincount(_draw(session, Sampling(temperature, top_p, top_k, seed=11)), minlength=VOCABULARY) / DRAWS
    wanted = _expected(temperature, top_k, top_p)
    assert not found[wanted == 0].any()
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / DRAWS)
    assert np.abs(found - wanted).sum() < 0.15


def test_a_seed_repeats_and_another_differs(session: ort.InferenceSession) -> None:
    first, again, other = (_draw(session, Sampling(1.0, seed=seed), 64) for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 100.0])
def test_extreme_temperatures_stay_finite(session: ort.InferenceSession, temperature: float) -> None:
    drawn = _draw(session, Sampling(temperature, seed=1), 64)
    assert ((drawn >= 0) & (drawn < VOCABULARY)).all()
    assert temperature > 1 or (drawn == LOGITS.argmax()).all()
