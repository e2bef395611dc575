"""The engine shares steps, keeps requests apart, and ends each of them exactly once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from engine_rig import EOS, WAIT_S, GatedSession, Receiver, request, running
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.metrics import DECODE_STEPS, DECODED_ROWS
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.errors import BackendDown, Overloaded, PromptTooLong
from glmserve.sampling_parameters import Sampling


class SlowSession(FakeSession):
    """A fake whose steps take so long."""

    def __init__(self, step_s: float, rows: int) -> None:
        super().__init__(rows=rows)
        self._step_s = step_s

    def run(self, step):  # type: ignore[no-untyped-def]
        time.sleep(self._step_s)
        return super().run(step)


def test_an_answer_comes_token_by_token_and_ends_at_its_length() -> None:
    with running() as (engine, _):
        receiver = Receiver()
        engine.submit(request([1, 2, 3], receiver, max_tokens=4))
        assert receiver.finish == Finish.LENGTH
        assert receiver.tokens == [4, 5, 6, 7]


def test_an_eos_token_ends_the_answer_and_is_not_part_of_it() -> None:
    with running() as (engine, _):
        receiver = Receiver()
        engine.submit(request([EOS - 3], receiver, max_tokens=50))
        assert receiver.finish == Finish.STOP
        assert receiver.tokens == [EOS - 2, EOS - 1]


def test_a_full_context_ends_the_answer() -> None:
    with running(FakeSession(context=8)) as (engine, _):
        receiver = Receiver()
        engine.submit(request([1, 2, 3, 4, 5], receiver, max_tokens=50))
        assert receiver.finish == Finish.LENGTH
        assert receiver.tokens == [6, 7, 8, 9]


def test_a_prompt_longer_than_the_context_is_refused_at_once() -> None:
    with running(FakeSession(context=8)) as (engine, _), pytest.raises(PromptTooLong, match="8 tokens; at most 7"):
        engine.submit(request(list(range(8)), Receiver()))


def test_requests_share_decode_steps() -> None:
    session = GatedSession(rows=4)
    with running(session) as (engine, _):
        session.gate.clear()
        receivers = [Receiver() for _ in range(4)]
        for index, receiver in enumerate(receivers):
            engine.submit(request([10 * index], receiver, max_tokens=20))
        session.gate.set()
        for index, receiver in enumerate(receivers):
            assert receiver.finish == Finish.LENGTH
            assert receiver.tokens == [10 * index + 1 + i for i in range(20)]
        assert engine.meter.totals[DECODE_STEPS] < 30  # 4 x 19 alone
        assert engine.meter.totals[DECODED_ROWS] == 4 * 19


def test_a_long_prompt_is_read_in_chunks_beside_decoded_rows() -> None:
    session = GatedSession(rows=2)
    with running(session, chunk_tokens=4) as (engine, _):
        first, second = Receiver(), Receiver()
        session.gate.clear()
        engine.submit(request([1], first, max_tokens=30))
        engine.submit(request(list(range(100, 120)), second, max_tokens=2))
        session.gate.set()
        assert second.finish == Finish.LENGTH and second.tokens == [120, 121]
        assert first.finish == Finish.LENGTH
        chunks = [(step.decoded, *step.chunk_new) for step in session.steps if not step.is_decode]
        assert chunks == [(0, 1), *[(1, 4)] * 5]


def test_more_requests_than_slots_wait_their_turn() -> None:
    with running(FakeSession(rows=2)) as (engine, session):
        receivers = [Receiver() for _ in range(9)]
        for index, receiver in enumerate(receivers):
            engine.submit(request([index], receiver, max_tokens=index + 1))
        for index, receiver in enumerate(receivers):
            assert receiver.finish == Finish.LENGTH
            assert receiver.tokens == list(range(index + 1, 2 * index + 2))
        assert max(len(step.lengths) for step in session.steps) == 2


def test_a_full_waiting_line_refuses() -> None:
    session = GatedSession(rows=1)
    with running(session, wait_queue=WaitQueue(2, 1000)) as (engine, _):
        session.gate.clear()
        with pytest.raises(Overloaded):
            for _ in range(20):
                engine.submit(request([1], Receiver(), max_tokens=1))
        session.gate.set()


def test_a_cancelled_request_frees_its_row_within_a_step() -> None:
    session = GatedSession(rows=2)
    with running(session) as (engine, _):
        leaving, staying = Receiver(), Receiver(at_first_token=session.gate.clear)
        session.gate.clear()
        engine.submit(request([1], leaving, max_tokens=60))
        engine.submit(request([500], staying, max_tokens=40))
        session.gate.set()
        assert leaving.got_token.wait(5) and staying.got_token.wait(5)
        leaving.cancelled.set()
        steps = len(session.steps)
        session.gate.set()
        assert leaving.code == "cancelled"
        assert staying.finish == Finish.LENGTH
        assert staying.tokens == [501 + i for i in range(40)]
        assert all(len(step.lengths) == 1 for step in session.steps[steps + 2 :])


def test_a_request_cancelled_while_it_waits_never_runs() -> None:
    session = GatedSession(rows=1)
    with running(session) as (engine, _):
        session.gate.clear()
        first, second = Receiver(), Receiver()
        engine.submit(request([1], first, max_tokens=3))
        engine.submit(request([700], second, max_tokens=3))
        second.cancelled.set()
        session.gate.set()
        assert second.code == "cancelled"
        assert first.finish == Finish.LENGTH
        assert all(700 not in step.input_ids for step in session.steps)


def test_a_deadline_ends_a_request_wherever_it_stands() -> None:
    with running() as (engine, _):
        receiver = Receiver()
        engine.submit(request([1], receiver, deadline_s=-1.0))
        assert receiver.code == "deadline_exceeded"


def test_an_exception_in_a_step_ends_its_requests_and_the_engine_goes_on() -> None:
    class Failing(FakeSession):
        should_fail = threading.Event()

        def run(self, step):  # type: ignore[no-untyped-def]
            if self.should_fail.is_set():
                self.should_fail.clear()
                raise RuntimeError("/some/path 0xdead")
            return super().run(step)

    session = Failing()
    with running(session) as (engine, _):
        session.should_fail.set()
        broken, fine = Receiver(), Receiver()
        engine.submit(request([1], broken))
        assert broken.code == "internal"
        assert "path" not in broken.events[-1].error.message  # type: ignore[union-attr]
        engine.submit(request([1], fine))
        assert fine.finish == Finish.LENGTH
        assert engine.is_healthy


def test_a_receiver_that_fails_loses_only_its_own_events() -> None:
    def broken(event: object) -> None:
        raise OSError("gone")

    with running() as (engine, _):
        fine = Receiver()
        bad = request([1], Receiver())
        object.__setattr__(bad, "emit", broken)
        engine.submit(bad)
        engine.submit(request([5], fine))
        assert fine.finish == Finish.LENGTH


def test_stopping_ends_what_still_runs_and_refuses_what_comes_after() -> None:
    with running(FakeSession(context=100_000, vocabulary=900)) as (engine, _):  # it never says EOS
        receiver = Receiver()
        engine.submit(request([1], receiver, max_tokens=90_000))
        assert receiver.got_token.wait(5)
        engine.stop()
        assert receiver.code == "backend_down"
        with pytest.raises(BackendDown):
            engine.submit(request([1], Receiver()))


def test_random_numbers_depend_on_seed_and_place_alone() -> None:
    def drawn(neighbours: int) -> list[np.ndarray]:
        session = GatedSession(rows=4)
        with running(session) as (engine, _):
            session.gate.clear()
            receivers = [Receiver() for _ in range(neighbours + 1)]
            for index, receiver in enumerate(receivers):
                seed = 7 if index == neighbours else 100 + index
                engine.submit(request([50 * index], receiver, sampling=Sampling(temperature=0.7, seed=seed)))
            session.gate.set()
            for receiver in receivers:
                receiver.wait()
            first = 50 * neighbours
            wanted = set(range(first, first + 6))
            return [
                step.sampler.uniform[row]
                for step in session.steps
                for row, token in enumerate(step.input_ids[step.drawn])
                if int(token) in wanted
            ]

    alone, crowded = drawn(0), drawn(3)
    assert len(alone) == len(crowded) == 5
    assert all(np.array_equal(a, b) for a, b in zip(alone, crowded, strict=True))
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.slow
def test_who_cannot_be_answered_in_time_is_refused_at_once_and_who_could_is_answered() -> None:
    """Steps of 10 ms and one slot: an answer takes 0.4 s."""
    with running(SlowSession(0.01, rows=1), slots=1) as (engine, _):
        first = Receiver()
        engine.submit(request([1], first, max_tokens=40))
        assert first.finish == Finish.LENGTH
        running_, waiting = Receiver(), Receiver()
        engine.submit(request([1], running_, max_tokens=40))
        assert running_.got_token.wait(WAIT_S)
        with pytest.raises(Overloaded) as caught:
            engine.submit(request([1], Receiver(), max_tokens=40, deadline_s=0.3))
        assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
        engine.submit(request([1], waiting, max_tokens=40, deadline_s=5))
        assert waiting.finish == Finish.LENGTH


@pytest.mark.slow
def test_who_waits_in_vain_is_refused_before_the_first_token() -> None:
    """Nothing is known when they come: then the first answer shows how long the others take. An answer takes 1.2 s, so
    that a busy machine's delays count for little beside it."""
    with running(SlowSession(0.1, rows=1), slots=1) as (engine, _):
        first, second = Receiver(), Receiver()
        engine.submit(request([1], first, max_tokens=12))
        engine.submit(request([1], second, max_tokens=12, deadline_s=1.9))
        assert first.finish == Finish.LENGTH
        assert second.code == "overloaded" and second.events[:-1] == []
