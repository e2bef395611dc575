"""The engine says how it is: one bad request harms no other, and a broken engine says so and ends."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from engine_rig import GatedSession, Receiver, request, running
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.engine import Engine
from glmserve.engine.metrics import FAILED, HEALTHY
from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.errors import BackendDown
from glmserve.sampling_parameters import Sampling


def test_a_request_whose_numbers_break_ends_alone() -> None:
    session = GatedSession(rows=3, broken=205)
    with running(session) as (engine, _):
        session.gate.clear()
        fine, broken, other = Receiver(), Receiver(), Receiver()
        engine.submit(request([1], fine, max_tokens=12))
        engine.submit(request([200], broken, max_tokens=12))
        engine.submit(request([300], other, max_tokens=12))
        session.gate.set()
        assert broken.code == "numeric_fault" and broken.tokens == [201, 202, 203, 204, 205]
        assert fine.finish == Finish.LENGTH and fine.tokens == list(range(2, 14))
        assert other.finish == Finish.LENGTH and other.tokens == list(range(301, 313))


def test_what_a_broken_request_left_is_not_taken_over() -> None:
    prompt = list(range(100, 140))
    with running(FakeSession(rows=3, broken=139)) as (engine, session):
        first, second = Receiver(), Receiver()
        engine.submit(request(prompt, first))
        assert first.code == "numeric_fault"
        engine.submit(request([*prompt[:-1], 500], second))
        assert second.finish == Finish.LENGTH
        assert sum(step.input_ids.size for step in session.steps[:2]) >= 2 * len(prompt)


def test_an_engine_whose_steps_keep_failing_calls_itself_broken() -> None:
    class Broken(FakeSession):
        def run(self, step: Step) -> Sampled:
            raise RuntimeError("/some/path 0xdead")

    with running(Broken()) as (engine, _):
        for _ in range(3):
            receiver = Receiver()
            engine.submit(request([1], receiver))
            assert receiver.code == "internal" and "path" not in receiver.events[-1].error.message  # type: ignore[union-attr]
        engine._thread.join(5)
        assert not engine.is_healthy and engine.meter.totals[HEALTHY] == 0
        with pytest.raises(BackendDown):
            engine.submit(request([1], Receiver()))
        assert engine.meter.totals[FAILED] == 3


def test_failures_far_apart_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glmserve.engine.engine._IDLE_WAIT_S", 0.005)

    class Broken(FakeSession):
        def run(self, step: Step) -> Sampled:
            raise RuntimeError

    with running(Broken()) as (engine, _):
        for _ in range(3):
            receiver = Receiver()
            engine.submit(request([1], receiver))
            assert receiver.code == "internal"
            time.sleep(0.05)  # many turns without anything to do
        engine._thread.join(5)
        assert not engine.is_healthy


@pytest.mark.parametrize("ending", ["finish", "cancel"])
def test_a_request_whose_row_cannot_be_moved_ends_all_the_same(ending: str) -> None:
    class Immovable(GatedSession):
        def move(self, source: int, target: int, length: int) -> None:
            raise RuntimeError

    session = Immovable(rows=2)
    with running(session) as (engine, _):
        first, after = Receiver(), Receiver()
        second = Receiver(first.cancelled.set if ending == "cancel" else lambda: None)
        session.gate.clear()
        engine.submit(request([1], first, max_tokens=8))
        engine.submit(request([500], second, max_tokens=12))  # in the row above, which has to close the hole
        session.gate.set()
        assert first.finish == Finish.LENGTH if ending == "finish" else first.code == "cancelled"
        assert second.code == "internal"
        engine.submit(request([7], after))
        assert after.finish == Finish.LENGTH and engine.is_healthy


def test_a_request_that_cannot_be_asked_whether_it_is_cancelled_ends_alone() -> None:
    def fails() -> bool:
        raise RuntimeError

    with running() as (engine, _):
        odd, fine = Receiver(), Receiver()
        engine.submit(replace(request([1], odd), is_cancelled=fails))
        engine.submit(request([10], fine))
        assert odd.code == "cancelled" and fine.finish == Finish.LENGTH and engine.is_healthy


def test_numbers_that_break_in_the_middle_of_a_prompt_end_the_request_there() -> None:
    """Its KV would be taken over if its client left before the prompt's end."""
    prompt = list(range(100, 150))
    with running(FakeSession(rows=3, broken=119), chunk_tokens=20) as (engine, session):
        broken, again = Receiver(), Receiver()
        engine.submit(request(prompt, broken))
        assert broken.code == "numeric_fault" and len(session.steps) == 1
        engine.submit(request([*prompt[:18], *range(300, 310)], again))
        assert again.finish == Finish.LENGTH
        assert again.events[-1].cached_tokens == 0  # type: ignore[union-attr]


def test_stop_ids_end_an_answer_of_their_own_request_only() -> None:
    with running() as (engine, _):
        one, two = Receiver(), Receiver()
        engine.submit(request([10], one, max_tokens=9, sampling=Sampling(stop_token_ids=(13,))))
        engine.submit(request([10], two, max_tokens=9))
        assert one.finish == Finish.STOP and one.tokens == [11, 12]
        assert two.finish == Finish.LENGTH


def test_log_probabilities_come_with_the_tokens_of_those_who_asked() -> None:
    with running() as (engine, _):
        asking, plain = Receiver(), Receiver()
        engine.submit(request([10], asking, max_tokens=4, sampling=Sampling(logprobs=True, top_logprobs=3)))
        engine.submit(request([50], plain, max_tokens=4))
        assert asking.finish == plain.finish == Finish.LENGTH
        listed = [event.logprobs for event in asking.events[:-1]]  # type: ignore[union-attr]
        assert [int(part.ids[0, 0]) for part in listed] == asking.tokens  # type: ignore[union-attr]
        assert {part.ids.shape for part in listed} == {part.values.shape for part in listed} == {(1, 4)}  # type: ignore[union-attr]
        assert all(event.logprobs is None for event in plain.events[:-1])  # type: ignore[union-attr]


def test_a_prompt_that_begins_like_an_ended_one_is_read_from_where_they_differ() -> None:
    with running(FakeSession(rows=3)) as (engine, session):
        first, second = Receiver(), Receiver()
        engine.submit(request(list(range(100, 130)), first, max_tokens=3))
        assert first.finish == Finish.LENGTH
        steps = len(session.steps)
        engine.submit(request([*range(100, 133), 400], second, max_tokens=3))  # what was asked and answered, and more
        assert second.finish == Finish.LENGTH and second.tokens == [401, 402, 403]
        assert session.steps[steps].input_ids.tolist() == [132, 400]
        assert second.events[-1].cached_tokens == 32  # type: ignore[union-attr]


def test_short_prompts_are_read_together() -> None:
    session = GatedSession(rows=4)
    with running(session, min_chunk_tokens=64) as (engine, _):
        session.gate.clear()
        receivers = [Receiver() for _ in range(4)]
        for index, receiver in enumerate(receivers):
            engine.submit(request([100 * index + i for i in range(8 + index)], receiver, max_tokens=3))
        session.gate.set()
        for index, receiver in enumerate(receivers):
            assert receiver.finish == Finish.LENGTH
            assert receiver.tokens == [100 * index + 8 + index + i for i in range(3)]
        assert any(len(step.chunk_new) >= 3 for step in session.steps)


def test_events_of_many_threads_arrive_once_each() -> None:
    with running(FakeSession(rows=8, vocabulary=100_000), slots=6) as (engine, _):
        receivers = [Receiver() for _ in range(40)]

        def send(part: int) -> None:
            for index in range(part, 40, 4):
                engine.submit(request([index * 100], receivers[index], max_tokens=5))

        threads = [threading.Thread(target=send, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for index, receiver in enumerate(receivers):
            assert receiver.finish == Finish.LENGTH
            assert receiver.tokens == [index * 100 + 1 + i for i in range(5)]
            assert sum(event.is_last for event in receiver.events) == 1


class ColdSession(FakeSession):
    """Cannot run on its device."""

    def warm_up(self) -> None:
        raise RuntimeError("out of memory")


def test_an_engine_whose_decoder_does_not_run_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(ColdSession(), eos_token_ids=[2])
    with pytest.raises(BackendDown):
        engine.start()
    assert not engine.is_healthy and "out of memory" in caplog.text


class WarmSession(FakeSession):
    """Remembers the threads that it was used by."""

    def warm_up(self) -> None:
        self.warmed_by = threading.get_ident()

    def run(self, step: Step) -> Sampled:
        self.run_by = threading.get_ident()
        return super().run(step)


def test_a_decoder_is_warmed_up_by_the_thread_that_will_run_it() -> None:
    session, receiver = WarmSession(), Receiver()
    with running(session) as (engine, _):
        engine.submit(request([1], receiver))
        assert receiver.finish == Finish.LENGTH
    assert session.run_by == session.warmed_by != threading.get_ident()
