"""Guessing ahead changes how many runs an answer takes, never the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_rig import Receiver, prompt, request, running
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.metrics import ACCEPTED_TOKENS, DECODE_STEPS, DRAFTED_TOKENS
from glmserve.engine.ngram_index import NgramIndex
from glmserve.engine.request import Request, Sequence
from glmserve.engine.runtime.decoder import Step
from glmserve.engine.speculative.proposer import Draft, NgramProposer
from glmserve.sampling_parameters import Sampling


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1, 2]),  # three agree
        ([9, 2, 3, 7, 1, 2, 3], [7, 1, 2, 3]),  # only two
        ([1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], [4, 8, 2, 3]),  # three are better than two that are nearer
        ([5, 7, 7, 7], [7, 7, 7, 7]),  # a loop goes on
        ([1, 2, 1, 2, 1, 2], [1, 2, 1, 2]),
        ([1, 2, 3, 4], []),
        ([1], []),
        ([], []),
    ],
)
def test_what_followed_the_last_words_before_is_expected(tokens: list[int], expected: list[int]) -> None:
    assert NgramIndex(tokens).continuation(4) == expected


def an_answer(proposer: NgramProposer, tokens: list[int], **sampled: Any) -> Sequence:
    """A request whose answer has come so far."""
    asked = Request(prompt([8, 9]), Sampling(max_tokens=50, **sampled), 1e9, lambda event: None)
    running = Sequence(asked, 0.0, length=1 + len(tokens))
    say(proposer, running, tokens)
    return running


def say(proposer: NgramProposer, running: Sequence, tokens: list[int]) -> None:
    for token in tokens:
        running.answer.append(token)
        proposer.observe_token(running, token)


def drafted(proposer: NgramProposer, rows: list[Sequence], context: int = 1000) -> int:
    draft = proposer.propose(rows, context)
    return len(draft.tokens) if draft else 0


def test_drafts_grow_with_luck_and_shrink_with_cost() -> None:
    proposer = NgramProposer(most=6, min_chunk_tokens=8)
    alone = an_answer(proposer, [1, 2, 3, 1, 2, 3])
    assert drafted(proposer, [alone]) == 0  # nothing is known of what a run costs
    proposer.observe_step(1, None, 0.040)
    hopeful = drafted(proposer, [alone])
    assert 1 <= hopeful < 6
    say(proposer, alone, [1, 2, 3] * 6)  # as expected
    assert drafted(proposer, [alone]) == 6
    for _ in range(9):
        proposer.observe_step(1, Draft(alone, [1, 2, 3, 1]), 0.240)  # 50 ms a guess, more than a token costs
    assert [drafted(proposer, [alone]) for _ in range(130)].count(1) == 2  # now and then one, to see


def test_the_answer_that_is_guessed_best_gets_the_draft_and_many_rows_need_better_guesses() -> None:
    proposer = NgramProposer(most=6, min_chunk_tokens=8)
    lucky, new = an_answer(proposer, [1, 2, 3] * 6), an_answer(proposer, [1, 2, 3, 1, 2, 3])
    unlucky = an_answer(proposer, [7, 1, 2, 4, 1, 2, 5, 1, 2, 6, 1, 2, 7, 1, 2])
    for rows in (1, 3, 30):
        proposer.observe_step(rows, None, 0.040 + 0.004 * rows)
    draft = proposer.propose([unlucky, lucky, new], 1000)
    assert draft is not None and draft.sequence is lucky and draft.tokens == [1, 2, 3, 1, 2, 3]
    assert drafted(proposer, [unlucky]) < drafted(proposer, [lucky])
    assert drafted(proposer, [lucky] * 30) > drafted(proposer, [unlucky] * 30) == 0


def test_no_draft_passes_the_end_of_the_answer_or_of_the_row() -> None:
    proposer = NgramProposer(most=6, min_chunk_tokens=64)
    alone = an_answer(proposer, [1, 2, 3] * 15)
    proposer.observe_step(1, None, 0.040)
    assert drafted(proposer, [alone], alone.length + 5) == 3  # the last place is left free
    say(proposer, alone, [1, 2, 3])
    assert drafted(proposer, [alone]) == 1


def test_nothing_is_guessed_where_each_token_changes_what_may_follow() -> None:
    proposer = NgramProposer(most=6, min_chunk_tokens=64)
    proposer.observe_step(1, None, 0.040)
    assert drafted(proposer, [an_answer(proposer, [1, 2, 3] * 5, logprobs=True)]) == 0
    assert drafted(NgramProposer(0, 64), [an_answer(NgramProposer(0, 64), [1, 2, 3] * 5)]) == 0


class Loops(FakeSession):
    """Answers with a loop of five tokens; forgets nothing and may be asked for several tokens at once."""

    def run(self, step: Step):  # type: ignore[no-untyped-def]
        sampled = super().run(step)
        tokens = sampled.tokens
        tokens[:] = np.where(tokens % 10 == 5, tokens - 5, tokens)
        return sampled


@pytest.mark.parametrize("neighbour", [False, True])
def test_an_answer_is_the_same_in_fewer_steps(neighbour: bool) -> None:
    answers, steps = [], []
    for draft_tokens in (0, 6):
        with running(Loops(rows=3, context=200), draft_tokens=draft_tokens) as (engine, session):
            receiver, other = Receiver(), Receiver()
            engine.submit(request([10], receiver, max_tokens=80))
            if neighbour:
                engine.submit(request([30], other, max_tokens=40))
                assert other.finish == Finish.LENGTH
                assert other.tokens == [30 + (i + 1) % 5 for i in range(40)]
            assert receiver.finish == Finish.LENGTH
            answers.append(receiver.tokens)
            steps.append(engine.meter.totals[DECODE_STEPS])
            guessed, right = (engine.meter.totals.get(m, 0) for m in (DRAFTED_TOKENS, ACCEPTED_TOKENS))
            assert (guessed > 0) == (draft_tokens > 0) and right <= guessed
            assert [10, 11, 12, 13, 14] in [row[:5] for row in session.kv]
    assert answers[0] == answers[1] == [10 + (i + 1) % 5 for i in range(80)]
    assert steps[1] < steps[0]


def test_an_answer_that_ends_within_a_draft_ends_there() -> None:
    with running(Loops(rows=2, context=200), draft_tokens=6) as (engine, _):
        receiver = Receiver()
        engine.submit(request([10], receiver, max_tokens=80, sampling=Sampling(stop_token_ids=(700,))))
        first = Receiver()
        engine.submit(request([20], first, max_tokens=33))
        assert first.finish == Finish.LENGTH and len(first.tokens) == 33
        assert receiver.finish == Finish.LENGTH and len(receiver.tokens) == 80
