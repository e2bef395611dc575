"""Guessing ahead changes how many runs an answer takes, never the answer."""

from __future__ import annotations

import numpy as np
import pytest
from engine_rig import Receiver, prompt, request, running

from glmserve.contract import Finish
from glmserve.engine.lookup import Lookup, continuation
from glmserve.engine.metrics import ACCEPTED_TOKENS, DECODE_STEPS, DRAFTED_TOKENS
from glmserve.engine.request import Request, Running, Sampling
from glmserve.engine.session import FakeSession, Step


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
    ],
)
def test_what_followed_the_last_words_before_is_proposed(tokens: list[int], expected: list[int]) -> None:
    assert continuation(np.array(tokens, np.int64), 4) == expected


def one(tokens: list[int], **more: object) -> Running:
    asked = Request(prompt(tokens[:-1]), Sampling(), 50, 1e9, lambda event: None, **more)  # type: ignore[arg-type]
    return Running(asked, 0.0, length=len(tokens) - 1, answer=[tokens[-1]])


def test_drafts_grow_while_they_are_right_and_stop_while_they_cost_more_than_they_bring() -> None:
    lookup, alone = Lookup(most=6, ridge_tokens=8), one([1, 2, 3] * 5)
    assert lookup.draft(alone, 100) == []  # nothing is known of what a run costs
    lookup.stepped(0, 0, 0.040)
    assert 1 <= len(lookup.draft(alone, 100)) < 6
    for _ in range(20):
        lookup.stepped(4, 4, 0.050)
    assert len(lookup.draft(alone, 100)) == 6
    for _ in range(40):
        lookup.stepped(4, 0, 0.090)
    assert [len(lookup.draft(alone, 100)) for _ in range(32)].count(1) == 2  # now and then one, to see
    lookup.stepped(1, 1, 0.041)


def test_no_draft_passes_the_end_of_the_answer_or_of_the_row() -> None:
    lookup, alone = Lookup(most=6, ridge_tokens=64), one([1, 2, 3] * 5)
    lookup.stepped(0, 0, 0.040)
    for _ in range(20):
        lookup.stepped(6, 6, 0.040)
    assert len(lookup.draft(alone, alone.length + 4)) == 3
    alone.answer = [1, 2, 3] * 16
    assert len(lookup.draft(alone, 1000)) == 1


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
            drafted, accepted = (engine.meter.totals.get(m, 0) for m in (DRAFTED_TOKENS, ACCEPTED_TOKENS))
            assert (drafted > 0) == (draft_tokens > 0) and accepted <= drafted
            assert session.kv[0][:5] == [10, 11, 12, 13, 14]
    assert answers[0] == answers[1] == [10 + (i + 1) % 5 for i in range(80)]
    assert steps[1] < steps[0]


def test_an_answer_that_ends_within_a_draft_ends_there() -> None:
    with running(Loops(rows=2, context=200), draft_tokens=6) as (engine, _):
        receiver = Receiver()
        engine.submit(request([10], receiver, max_tokens=80, stop_ids=frozenset([700])))
        first = Receiver()
        engine.submit(request([20], first, max_tokens=33))
        assert first.finish == Finish.LENGTH and len(first.tokens) == 33
        assert receiver.finish == Finish.LENGTH and len(receiver.tokens) == 80
