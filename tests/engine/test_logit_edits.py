"""What the parameters of an answer do to its logits is what their formulas say, whatever the answer has so far."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_rig import EOS, Receiver, request, running
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.logit_edits import Edits, edits_of
from glmserve.sampling_parameters import Sampling

VOCABULARY = 60
EOS_IDS = frozenset({1, 2})
RULED_OUT = -1e29


def edited(logits: np.ndarray, edits: Edits | None, mask: np.ndarray | None) -> np.ndarray:
    """What the graph makes of the logits f32 [vocabulary] of one row."""
    logits = logits.copy()
    if edits is not None:
        assert len(np.unique(edits.tokens)) == len(edits.tokens), "a logit is edited twice"
        seen = logits[edits.tokens]
        logits[edits.tokens] = np.where(seen > 0, seen / edits.penalty, seen * edits.penalty) + edits.bias
    return logits if mask is None else np.where(mask, logits, -np.inf)


def by_the_formulas(
    logits: np.ndarray, sampling: Sampling, prompt: list[int], answer: list[int], grammar: np.ndarray | None
) -> np.ndarray:
    """The same token by token, in doubles."""
    wanted = logits.astype(np.float64)
    for token in range(VOCABULARY):
        if token in prompt or token in answer:
            r = sampling.repetition_penalty
            wanted[token] = wanted[token] / r if wanted[token] > 0 else wanted[token] * r
        wanted[token] += sum(bias for biased, bias in sampling.logit_bias if biased == token)
        wanted[token] -= sampling.frequency_penalty * answer.count(token)
        wanted[token] -= sampling.presence_penalty * (token in answer)
    allowed = set(range(VOCABULARY)) if grammar is None else set(np.flatnonzero(grammar).tolist())
    if sampling.allowed_token_ids:
        allowed = allowed & set(sampling.allowed_token_ids) or allowed
    endings = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else EOS_IDS)}
    ruled_out = endings if len(answer) < sampling.min_tokens else set()
    for word in sampling.bad_words:
        so_far = [*answer, word[-1]]
        if tuple(so_far[-len(word) :]) == word:
            ruled_out = ruled_out | {word[-1]}
    allowed = allowed - ruled_out or allowed
    wanted[sorted(set(range(VOCABULARY)) - allowed)] = -np.inf
    return wanted


def any_sampling(rng: np.random.Generator) -> Sampling:
    def sometimes(value: Any, otherwise: Any) -> Any:
        return value if rng.random() < 0.5 else otherwise

    return Sampling(
        repetition_penalty=sometimes(float(np.float32(rng.uniform(0.5, 2))), 1.0),
        frequency_penalty=sometimes(float(rng.uniform(-2, 2)), 0.0),
        presence_penalty=sometimes(float(rng.uniform(-2, 2)), 0.0),
        min_tokens=sometimes(int(rng.integers(1, 8)), 0),
        ignore_eos=bool(rng.random() < 0.3),
        stop_token_ids=sometimes((3, 4), ()),
        logit_bias=sometimes(tuple((int(t), float(rng.uniform(-9, 9))) for t in rng.permutation(VOCABULARY)[:20]), ()),
        bad_words=sometimes(tuple(tuple(rng.integers(5, 9, rng.integers(1, 4)).tolist()) for _ in range(3)), ()),
        allowed_token_ids=sometimes(tuple(rng.permutation(VOCABULARY)[:30].tolist()), ()),
    )


@pytest.mark.parametrize("seed", range(60))
def test_edits_are_what_the_formulas_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sampling, prompt, answer = any_sampling(rng), rng.integers(0, VOCABULARY, 90).tolist(), list[int]()
    edits = edits_of(sampling, np.array(prompt), EOS_IDS, VOCABULARY)
    for _ in range(25):
        logits = rng.normal(0, 3, VOCABULARY).astype(np.float32)
        grammar = rng.random(VOCABULARY) < 0.2 if rng.random() < 0.3 else None
        if grammar is not None:
            grammar[int(rng.integers(VOCABULARY))] = True
        found = edited(logits, *(edits.after(answer, grammar) if edits else (None, grammar)))
        wanted = by_the_formulas(logits, sampling, prompt, answer, grammar)
        is_out = np.isinf(wanted)
        assert (found[is_out] < RULED_OUT).all()
        np.testing.assert_allclose(found[~is_out], wanted[~is_out], atol=1e-4)
        answer.append(int(rng.integers(0, VOCABULARY) if rng.random() < 0.5 else rng.integers(5, 9)))
        if edits:
            edits.add(answer[-1])


@pytest.mark.parametrize("count", [63, 64, 65, 129, 700])
def test_edits_of_any_number_of_tokens_are_all_made(count: int) -> None:
    """A prompt's different tokens, the biased ones and the answer's own are more than there was room for at first."""
    prompt, biased, said = np.arange(count), range(count, 2 * count), range(2 * count, 3 * count)
    sampling = Sampling(
        repetition_penalty=2.0, frequency_penalty=1.0, logit_bias=tuple((token, 5.0) for token in biased)
    )
    edits = edits_of(sampling, prompt, EOS_IDS, 3 * count)
    assert edits is not None
    for token in said:
        edits.add(token)
    logits = edited(np.full(3 * count, 8.0, np.float32), *edits.after(list(said), None))
    assert logits[:count].tolist() == [4.0] * count
    assert logits[count : 2 * count].tolist() == [13.0] * count
    assert logits[2 * count :].tolist() == [3.0] * count


def test_what_leaves_a_grammar_no_token_does_not_count() -> None:
    only = np.zeros(VOCABULARY, np.bool_)
    only[[1, 7]] = True
    sampling = Sampling(min_tokens=5, bad_words=((7,),), allowed_token_ids=(9,))
    edits = edits_of(sampling, np.zeros(1, np.int64), EOS_IDS, VOCABULARY)
    assert edits is not None
    _, mask = edits.after([], only)
    assert mask is not None and np.flatnonzero(mask).tolist() == [1, 7]


def test_plain_sampling_has_no_edits() -> None:
    plain = Sampling(temperature=1, top_k=4, top_p=0.4, min_p=0.1, seed=7, stop_token_ids=(5,), ignore_eos=True)
    assert edits_of(plain, np.arange(5), EOS_IDS, VOCABULARY) is None
    assert edits_of(Sampling(), np.arange(5), EOS_IDS, VOCABULARY) is None


def answered(tokens: list[int], sampling: Sampling, max_tokens: int = 8, **more: Any) -> tuple[list[int], Finish]:
    """What the engine answers on the session that counts: the token after n is n + 1."""
    receiver = Receiver()
    with running(FakeSession(), draft_tokens=4) as (engine, _):
        engine.submit(request(tokens, receiver, max_tokens, sampling=sampling, **more))
        receiver.wait()
    return receiver.tokens, receiver.finish


def test_the_fewest_tokens_come_before_the_end() -> None:
    assert answered([EOS - 1], Sampling()) == ([], Finish.STOP)
    tokens, finish = answered([EOS - 1], Sampling(min_tokens=3))
    assert len(tokens) >= 3 and EOS not in tokens and finish is Finish.LENGTH
    assert answered([10], Sampling(min_tokens=3, stop_token_ids=(12,)))[0][:3] != [11]
    assert answered([10], Sampling(min_tokens=3, stop_token_ids=(15,))) == ([11, 12, 13, 14], Finish.STOP)


def test_an_ignored_end_is_a_token_like_any_other() -> None:
    assert answered([EOS - 2], Sampling(ignore_eos=True), 4) == ([998, EOS, 0, 1], Finish.LENGTH)
    both = Sampling(ignore_eos=True, stop_token_ids=(1,))
    assert answered([EOS - 2], both) == ([998, EOS, 0], Finish.STOP)


def test_a_bad_word_of_several_tokens_is_never_completed() -> None:
    tokens, _ = answered([10], Sampling(bad_words=((12, 13, 14), (11, 13))))
    assert tokens[:3] == [11, 12, 13] and tokens[3] != 14
    assert answered([10], Sampling(bad_words=((11,),)))[0][0] != 11


def test_only_allowed_tokens_are_drawn() -> None:
    tokens, _ = answered([10], Sampling(allowed_token_ids=(7, 11, 500)))
    assert set(tokens) == {7}  # of those that a mask allows the session takes the first


def test_a_bias_draws_a_token_or_bans_it() -> None:
    assert answered([10], Sampling(logit_bias=((300, 100.0),)), 3)[0] == [300, 300, 300]
    assert answered([10], Sampling(logit_bias=((11, -100.0),)), 1)[0] != [11]


def test_penalties_move_an_answer_on() -> None:
    biased = Sampling(logit_bias=((300, 3.0), (400, 2.5)))
    assert answered([10], biased, 4)[0] == [300] * 4
    assert answered([10], replace(biased, presence_penalty=1.0), 4)[0] == [300, 400, 300, 300]
    assert answered([10], replace(biased, frequency_penalty=1.0), 4)[0] == [300, 400, 300, 400]


class EveryToken:
    """A grammar that allows some tokens at any time."""

    def __init__(self, *allowed: int) -> None:
        self._mask = np.zeros(1000, np.bool_)
        self._mask[list(allowed)] = True

    def first_mask(self) -> Future[np.ndarray]:
        done: Future[np.ndarray] = Future()
        done.set_result(self._mask)
        return done

    def next_mask(self, token: int) -> Future[np.ndarray]:
        return self.first_mask()


def test_a_grammar_and_the_fewest_tokens_hold_together() -> None:
    tokens, finish = answered([10], Sampling(min_tokens=3), 3, grammar=EveryToken(5, EOS))
    assert tokens == [5, 5, 5] and finish is Finish.LENGTH
    assert answered([10], Sampling(min_tokens=3), 3, grammar=EveryToken(EOS)) == ([], Finish.STOP)
