"""The sampler in the graph draws what the settings say, from the distribution they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.checkpoint.weights import Weights
from export.graph.builder import graph_input
from export.graph.layers import GraphWriter
from export.graph.sampler import sample
from glmserve.engine.logit_edits import Edits
from glmserve.engine.runtime.sampling import Draw, filled, sampler_inputs
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.sampling_parameters import Sampling

VOCABULARY = 200
LOGITS = np.random.default_rng(1).normal(0, 2, VOCABULARY).astype(np.float32)
DRAWS = 4000


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    g = GraphWriter(Weights(Path(), {}))
    hidden = graph_input("hidden", ir.DataType.FLOAT, ["B", 4])
    logits = graph_input("logits", ir.DataType.FLOAT, ["B", VOCABULARY])
    sampler = sample(g, hidden, logits, VOCABULARY)
    model = g.model("sampler", [hidden, logits, *sampler.inputs], sampler.outputs)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, draws: list[Draw], logits: np.ndarray, hidden: float = 0.0) -> list[np.ndarray]:
    """Tokens i64 [B], log-probabilities and their ids."""
    feeds = {"hidden": np.full((len(draws), 4), hidden, np.float32), "logits": logits}
    token, values, ids = session.run(None, feeds | sampler_inputs(draws, SAMPLER_CANDIDATES, VOCABULARY).by_input())
    return [token[:, 0], values, ids]


def _edits(tokens: np.ndarray, penalty: float = 1.0, bias: float = 0.0) -> Edits:
    return Edits(tokens, np.full(len(tokens), penalty, np.float32), np.full(len(tokens), bias, np.float32))


def _draw(session: ort.InferenceSession, sampling: Sampling, draws: int = DRAWS) -> np.ndarray:
    return _run(session, [Draw(sampling, index) for index in range(draws)], np.tile(LOGITS, (draws, 1)))[0]


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
    found = (
        np.bincount(
            _draw(session, Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=11)), minlength=VOCABULARY
        )
        / DRAWS
    )
    wanted = _expected(temperature, top_k, top_p)
    assert not found[wanted == 0].any()
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / DRAWS)
    assert np.abs(found - wanted).sum() < 0.15


def test_a_seed_repeats_and_another_differs(session: ort.InferenceSession) -> None:
    first, again, other = (_draw(session, Sampling(temperature=1.0, seed=seed), 64) for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 100.0])
def test_extreme_temperatures_stay_finite(session: ort.InferenceSession, temperature: float) -> None:
    drawn = _draw(session, Sampling(temperature=temperature, seed=1), 64)
    assert ((drawn >= 0) & (drawn < VOCABULARY)).all()
    assert temperature > 1 or (drawn == LOGITS.argmax()).all()


def test_min_p_keeps_what_is_likely_beside_the_likeliest(session: ort.InferenceSession) -> None:
    drawn = set(_draw(session, Sampling(temperature=1.0, min_p=0.3, seed=2)).tolist())
    p = np.exp(LOGITS - LOGITS.max())
    assert drawn == set(np.flatnonzero(p >= 0.3).tolist())


def test_a_repetition_penalty_lowers_what_was_seen_as_transformers_does(session: ort.InferenceSession) -> None:
    seen, penalty = np.argsort(-LOGITS)[:6], 3.0
    expected = LOGITS.copy()
    expected[seen] = np.where(expected[seen] > 0, expected[seen] / penalty, expected[seen] * penalty)
    plain, lowered = Draw(Sampling()), Draw(Sampling(), edits=_edits(seen, penalty))
    rows = [plain, lowered, plain]
    assert _run(session, rows, np.tile(LOGITS, (3, 1)))[0].tolist() == [
        LOGITS.argmax(),
        expected.argmax(),
        LOGITS.argmax(),
    ]


def test_a_bias_is_added_after_the_penalty_and_only_in_its_row(session: ort.InferenceSession) -> None:
    rng = np.random.default_rng(8)
    for penalty in (1.0, 1.5, 0.7):
        tokens, bias = rng.permutation(VOCABULARY), rng.uniform(-3, 3, VOCABULARY).astype(np.float32)
        expected = LOGITS.copy()
        seen = LOGITS[tokens]
        expected[tokens] = np.where(seen > 0, seen / penalty, seen * penalty) + bias
        edited = Draw(Sampling(), edits=Edits(tokens, np.full(VOCABULARY, penalty, np.float32), bias))
        rows = [edited, Draw(Sampling())]
        assert _run(session, rows, np.tile(LOGITS, (2, 1)))[0].tolist() == [expected.argmax(), LOGITS.argmax()]


def test_what_a_bias_rules_out_is_never_drawn_and_no_fault_of_the_model(session: ort.InferenceSession) -> None:
    likeliest = np.argsort(-LOGITS)
    for temperature in (0.0, 1e-6, 1.0):
        ruled_out = Draw(Sampling(temperature=temperature), edits=_edits(likeliest[:190], bias=-1e30))
        assert _run(session, [ruled_out], LOGITS[None])[0][0] in likeliest[190:]


def test_a_mask_leaves_only_what_it_allows_and_only_in_its_row(session: ort.InferenceSession) -> None:
    mask = np.zeros(VOCABULARY, np.bool_)
    mask[[7, 9]] = True
    token = _run(session, [Draw(Sampling(), mask=mask), Draw(Sampling())], np.tile(LOGITS, (2, 1)))[0]
    assert token.tolist() == [max((7, 9), key=lambda i: LOGITS[i]), LOGITS.argmax()]


@pytest.mark.parametrize("temperature", [1e-6, 1e-29, 1e-38, 1e-45])
def test_at_the_least_temperatures_a_mask_still_holds(session: ort.InferenceSession, temperature: float) -> None:
    mask = np.zeros(VOCABULARY, np.bool_)
    mask[LOGITS.argmin()] = True  # below 0, so that dividing it by next to nothing takes it very far down
    assert LOGITS.min() < 0
    draws = [Draw(Sampling(temperature=temperature), mask=mask), Draw(Sampling(temperature=temperature))]
    assert _run(session, draws, np.tile(LOGITS, (2, 1)))[0].tolist() == [LOGITS.argmin(), LOGITS.argmax()]


def test_log_probabilities_are_the_models_own(session: ort.InferenceSession) -> None:
    expected = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
    hot = Sampling(temperature=1.7, top_k=5, seed=4)
    draws = [Draw(Sampling()), Draw(replace(hot, logprobs=True), 3), Draw(hot, 3)]
    token, values, ids = _run(session, draws, np.tile(LOGITS, (3, 1)))
    assert token[1] == token[2] and ids.shape == (1, 1 + MAX_LOGPROBS)
    assert ids[0].tolist() == [token[1], *np.argsort(-LOGITS)[:MAX_LOGPROBS].tolist()]
    assert np.allclose(values[0], expected[ids[0]], atol=1e-5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_row_that_is_not_finite_yields_minus_one_and_its_neighbours_do_not_mind(
    session: ort.InferenceSession, broken: float
) -> None:
    logits = np.tile(LOGITS, (3, 1))
    logits[1, 5 if np.isinf(broken) else slice(None)] = broken
    assert _run(session, [Draw(Sampling())] * 3, logits)[0].tolist() == [LOGITS.argmax(), -1, LOGITS.argmax()]
    assert _run(session, [Draw(Sampling())], LOGITS[None], hidden=broken)[0].tolist() == [-1]


def test_lists_that_are_filled_up_change_nothing(session: ort.InferenceSession) -> None:
    rng = np.random.default_rng(5)
    draws = [
        Draw(Sampling(temperature=0.9, seed=1), 4, edits=_edits(rng.choice(VOCABULARY, 40, replace=False), 1.3, 0.5)),
        Draw(Sampling(logprobs=True), 2, edits=_edits(np.arange(7), 0.7, -0.5)),
        *[
            Draw(Sampling(temperature=0.8, seed=row, logprobs=True), 1, mask=rng.random(VOCABULARY) < 0.3)
            for row in range(3)
        ],
    ]
    logits = rng.standard_normal((len(draws), VOCABULARY)).astype(np.float32)
    inputs = sampler_inputs(draws, SAMPLER_CANDIDATES, VOCABULARY)
    feeds = {"hidden": np.zeros((len(draws), 4), np.float32), "logits": logits}
    plain, longer = (session.run(None, feeds | given.by_input()) for given in (inputs, filled(inputs)))
    np.testing.assert_array_equal(longer[0], plain[0])
    for listed, wanted in zip(longer[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(listed[: len(wanted)], wanted)
        assert len(listed) == len(wanted) == 4
