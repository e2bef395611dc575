"""A running request may lose its row at any step: its stream pauses, and goes on as if nothing had happened."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from engine_rig import EOS, WAIT_S, GatedSession, Receiver, request, running
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.engine import Engine
from glmserve.engine.metrics import CACHED_TOKENS, GENERATED_TOKENS, PREEMPTIONS, PROMPT_TOKENS, WAITING
from glmserve.engine.request import Done, Tokens
from glmserve.sampling_parameters import Sampling


class Preempting(Engine):
    """Before one turn in three it takes the row of a sequence that it chooses by chance."""

    chance = random.Random(0)

    def _turn(self) -> None:
        held = [*self._table.decoding, *self._table.prefilling]
        if held and self.chance.random() < 1 / 3:
            self._preempt(self.chance.choice(held))
            self._table.check()
        super()._turn()


@pytest.fixture(params=range(8))
def seed(request: pytest.FixtureRequest) -> int:
    Preempting.chance = random.Random(request.param)
    return int(request.param)


def test_every_answer_is_the_same_and_arrives_once(seed: int) -> None:
    chance = random.Random(seed)
    with running(FakeSession(rows=6, context=200), Preempting, slots=4, chunk_tokens=16, draft_tokens=4) as (engine, _):
        receivers = [(Receiver(), chance.randrange(1, 60), 100 * at) for at in range(8)]
        for receiver, length, first in receivers:
            engine.submit(request([first + i for i in range(length)], receiver, max_tokens=25))
        for receiver, length, first in receivers:
            assert receiver.finish == Finish.LENGTH
            assert receiver.tokens == [first + length + i for i in range(25)]
        totals = engine.meter.totals
        assert totals[PREEMPTIONS] > 10
        assert totals[GENERATED_TOKENS] == 8 * 25
        assert totals[PROMPT_TOKENS] == sum(length for _, length, _ in receivers)  # read again, counted once
        assert totals[CACHED_TOKENS] <= totals[PROMPT_TOKENS]


def test_who_arrived_first_goes_on_first() -> None:
    """One row, and both lose it: the older one gets it back although the younger lost it earlier."""

    class Once(Preempting):
        def _turn(self) -> None:
            if self._table.decoding and not self.meter.totals[PREEMPTIONS]:
                for sequence in list(reversed(self._table.decoding)):
                    self._preempt(sequence)
                assert self._session.gate.is_set()  # type: ignore[attr-defined]
            Engine._turn(self)

    session = GatedSession(rows=1)
    session.gate.clear()
    with running(session, Once, slots=1) as (engine, _):
        receivers = [Receiver() for _ in range(3)]
        for at, receiver in enumerate(receivers):
            engine.submit(request([100 * at], receiver, max_tokens=5))
        session.gate.set()
        for at, receiver in enumerate(receivers):
            assert receiver.finish == Finish.LENGTH and receiver.tokens == [100 * at + 1 + i for i in range(5)]
        order = [int(step.input_ids[0]) // 100 for step in session.steps]
        assert order == sorted(order), "a younger request ran before an older one that had lost its row"


def test_random_numbers_and_penalties_go_on_where_they_were(seed: int) -> None:
    def answered(kind: type[Engine]) -> tuple[list[int], list[np.ndarray]]:
        session = FakeSession(rows=3, context=200)
        with running(session, kind, slots=2) as (engine, _):
            penalised = Sampling(temperature=0.7, seed=7, repetition_penalty=1.5, frequency_penalty=0.3)
            receiver, other = Receiver(), Receiver()
            engine.submit(request(list(range(500, 520)), other, max_tokens=30))
            engine.submit(request([1, 2, 3], receiver, max_tokens=20, sampling=penalised))
            assert receiver.finish == other.finish == Finish.LENGTH
            mine = set(receiver.tokens)
            drawn = {
                int(step.input_ids[step.drawn][row]): step.sampler.uniform[row].copy()
                for step in session.steps
                for row, token in enumerate(step.input_ids[step.drawn])
                if int(token) in mine and step.sampler.uniform[row].max() != 0.5
            }
            return receiver.tokens, [drawn[token] for token in sorted(drawn)]

    calm, restless = answered(Engine), answered(Preempting)
    assert calm[0] == restless[0]
    assert all(np.array_equal(a, b) for a, b in zip(calm[1], restless[1], strict=True))


class Slow:
    """Allows the token that follows the last one by 3, and says so late."""

    def __init__(self, first: int) -> None:
        self._next = first

    def first_mask(self) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        future.set_result(self._mask())
        return future

    def next_mask(self, token: int) -> Future[np.ndarray]:
        assert token == self._next, "a token was told twice, or not at all"
        self._next += 3
        mask, future = self._mask(), Future[np.ndarray]()
        threading.Timer(0.002, lambda: future.set_result(mask)).start()
        return future

    def _mask(self) -> np.ndarray:
        mask = np.zeros(1000, np.bool_)
        mask[self._next] = True
        return mask


def test_a_grammar_goes_on_where_it_was(seed: int) -> None:
    with running(FakeSession(rows=3, context=200), Preempting, slots=2) as (engine, _):
        receiver, other = Receiver(), Receiver()
        engine.submit(request([1, 2], receiver, max_tokens=15, grammar=Slow(300), sampling=Sampling(logprobs=True)))
        engine.submit(request([700], other, max_tokens=30))
        assert receiver.finish == other.finish == Finish.LENGTH
        assert receiver.tokens == [300 + 3 * i for i in range(15)]
        assert all(event.logprobs is not None for event in receiver.events if isinstance(event, Tokens))


class Stuck(Preempting):
    """Takes the row of whoever decodes after each of its tokens, and never gives it back while `holds`."""

    holds = True

    def _turn(self) -> None:
        for sequence in list(self._table.decoding):
            if sequence.preemptions < len(sequence.answer):
                self._preempt(sequence)
        if self._scheduler.preempted and self.holds:
            self._drop_the_gone()
            time.sleep(0.001)
        else:
            Engine._turn(self)


@pytest.mark.parametrize("reason", ["cancelled", "deadline_exceeded", "backend_down"])
def test_a_request_without_its_row_still_ends(reason: str) -> None:
    receiver = Receiver()
    with running(FakeSession(), Stuck) as (engine, _):
        engine.submit(request([1], receiver, max_tokens=30, deadline_s=0.5 if reason == "deadline_exceeded" else 60))
        assert receiver.got_token.wait(WAIT_S)
        if reason == "cancelled":
            receiver.cancelled.set()
        if reason == "backend_down":
            engine.stop()
        assert receiver.code == reason
    assert not engine._scheduler.preempted and engine.meter.totals[WAITING] == 0


def test_what_its_prompt_found_cached_is_told_of_its_first_start() -> None:
    with running(FakeSession(rows=2, context=200), Stuck, slots=1) as (engine, _):
        engine.holds = False  # type: ignore[attr-defined]
        receiver = Receiver()
        engine.submit(request(list(range(40)), receiver, max_tokens=6))
        last = receiver.wait()
        assert isinstance(last, Done) and last.cached_tokens == 0  # of its own KV nothing counts
        assert engine.meter.totals[PREEMPTIONS] == 5 and engine.meter.totals[CACHED_TOKENS] == 0


def test_numbers_that_break_while_it_is_read_again_end_it() -> None:
    class Breaking(Stuck):
        holds = False

        def _preempt(self, sequence) -> None:  # type: ignore[no-untyped-def]
            super()._preempt(sequence)
            self._session._broken = sequence.prompt.input_ids[-1]  # type: ignore[attr-defined]

    with running(FakeSession(), Breaking) as (engine, session):
        receiver, fine = Receiver(), Receiver()
        engine.submit(request([1, 2, 3], receiver, max_tokens=6))
        assert receiver.code == "numeric_fault"
        Breaking._preempt = Engine._preempt  # type: ignore[method-assign]
        session._broken = None
        engine.submit(request([EOS - 2], fine, max_tokens=6))
        assert fine.finish == Finish.STOP
