"""Settings of rows as arrays: random numbers that depend on seed and place alone, and what greedy rows share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from glmserve.engine.logit_edits import Edits
from glmserve.engine.runtime.sampling import GREEDY, Draw, filled, padded, sampler_inputs
from glmserve.sampling_parameters import Sampling

CANDIDATES, VOCABULARY = 64, 600


def penalised(tokens: np.ndarray, penalty: float) -> Edits:
    return Edits(tokens, np.full(len(tokens), penalty, np.float32), np.zeros(len(tokens), np.float32))


def numbers(seed: int, index: int) -> np.ndarray:
    draws = [Draw(Sampling(temperature=1, seed=seed), index)]
    return sampler_inputs(draws, CANDIDATES, VOCABULARY).uniform[0]


def test_tokens_of_an_answer_share_no_random_numbers() -> None:
    seen = [pair for index in range(200) for pair in pairwise(numbers(7, index).tolist())]
    assert len(set(seen)) == len(seen)


def test_random_numbers_are_even_and_never_0_or_1() -> None:
    all_of_them = np.stack([numbers(seed, index) for seed in range(20) for index in range(100)])
    assert all_of_them.min() > 0 and all_of_them.max() < 1
    counts, _ = np.histogram(all_of_them, 20, (0, 1))
    assert np.abs(counts / all_of_them.size - 0.05).max() < 0.002
    following = np.corrcoef(all_of_them[:-1].ravel(), all_of_them[1:].ravel())[0, 1]
    assert abs(following) < 0.02


def test_a_row_has_the_same_numbers_whatever_is_beside_it() -> None:
    draw = Draw(Sampling(temperature=0.5, seed=3), 17)
    others = [Draw(Sampling(temperature=1, seed=seed), seed) for seed in range(5)]
    alone = sampler_inputs([draw], CANDIDATES, VOCABULARY)
    together = sampler_inputs([*others, GREEDY, draw], CANDIDATES, VOCABULARY)
    np.testing.assert_array_equal(together.uniform[-1], alone.uniform[0])
    assert together.parameters["top_k"][:, 0].tolist() == [CANDIDATES] * 5 + [1, CANDIDATES]


def test_greedy_rows_share_arrays_that_nobody_can_write_to() -> None:
    one, other = (sampler_inputs([GREEDY, Draw(Sampling())], CANDIDATES, VOCABULARY) for _ in range(2))
    assert one is other
    with pytest.raises(ValueError, match="read-only"):
        one.parameters["temperature"][0] = 2


def test_padding_repeats_what_any_row_may_have() -> None:
    greedy = sampler_inputs([GREEDY] * 3, CANDIDATES, VOCABULARY)
    assert padded(greedy, 1) is sampler_inputs([GREEDY] * 4, CANDIDATES, VOCABULARY)
    mixed = padded(sampler_inputs([Draw(Sampling(temperature=0.5)), GREEDY], CANDIDATES, VOCABULARY), 2)
    assert mixed.parameters["temperature"][:, 0].tolist() == [0.5, 1, 0.5, 0.5]
    assert len(mixed.uniform) == 4 and not any(mixed.extras)


@pytest.mark.parametrize(("seen", "wanted"), [(1, 1024), (1024, 1024), (1025, 8192), (9000, 65536)])
def test_lists_of_extras_have_few_lengths(seen: int, wanted: int) -> None:
    mask = np.ones(VOCABULARY, np.bool_)
    draws = [
        Draw(Sampling(), edits=penalised(np.arange(seen), 1.1)),
        *[Draw(Sampling(logprobs=True), mask=mask)] * 3,
    ]
    inputs = sampler_inputs(draws, CANDIDATES, VOCABULARY)
    longer = filled(inputs)
    assert longer.extras == (wanted, 4, 4)
    assert len(np.unique(longer.edit_index, axis=0)) == seen
    assert longer.mask_rows[:, 0].tolist() == [1, 2, 3, 3] and longer.logprob_rows.tolist() == [1, 2, 3, 3]
    assert filled(longer).extras == longer.extras


def test_what_has_no_extras_is_left_as_it_is() -> None:
    inputs = sampler_inputs([GREEDY], CANDIDATES, VOCABULARY)
    assert filled(inputs) is inputs
