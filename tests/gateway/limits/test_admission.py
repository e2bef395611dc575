"""Room is given by tokens, in order, to a line of bounded length; a refusal never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cpu_time import takes_less_than
from eventually import eventually
from fake_backend import FakeBackend
from samples import ask, assert_problem

from gateway.app import create_app
from gateway.deadline import Deadline
from gateway.limits.admission import Admission
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation, Chunk
from glmserve.errors import Cancelled, DeadlineExceeded, GlmServeError, Overloaded

WAIT_S = 10


def enter(admission: Admission, tokens: int, cancellation: Cancellation | None = None) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(admission.admit(tokens, Deadline.after(WAIT_S), cancellation or Cancellation()))
    return stack


def test_requests_run_together_while_their_tokens_fit() -> None:
    admission = Admission(100, 9, 9)
    first, second = enter(admission, 60), enter(admission, 40)
    assert admission.counts() == (2, 0, 100)
    first.close()
    second.close()
    assert admission.counts() == (0, 0, 0)


def test_those_who_wait_come_in_in_their_order() -> None:
    admission, order = Admission(100, 9, 9), list[int]()

    def wait(number: int) -> None:
        with enter(admission, 100):
            order.append(number)

    running = enter(admission, 100)
    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            pool.submit(wait, number)
            assert eventually(lambda n=number: admission.counts()[1] == n + 1)  # type: ignore[misc]
        running.close()
    assert order == [0, 1, 2] and admission.counts() == (0, 0, 0)


def test_a_request_larger_than_all_the_room_runs_alone() -> None:
    admission = Admission(100, 9, 0)
    with enter(admission, 5000), pytest.raises(Overloaded):
        enter(admission, 1)


@pytest.mark.parametrize(("places", "max_waiting"), [(1, 9), (9, 0)])
def test_a_full_house_refuses_at_once_and_says_when_to_come_back(places: int, max_waiting: int) -> None:
    admission = Admission(100, places, max_waiting)
    with enter(admission, 100):
        began = time.monotonic()
        with pytest.raises(Overloaded) as caught:
            enter(admission, 100)
        assert time.monotonic() - began < WAIT_S / 3  # who waits does so to the deadline

        def is_refused() -> None:
            with pytest.raises(Overloaded):
                enter(admission, 100)

        assert takes_less_than(0.02, is_refused)
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
    assert admission.counts() == (0, 0, 0)


def test_who_leaves_or_runs_out_of_time_leaves_the_line() -> None:
    admission, cancellation = Admission(100, 9, 9), Cancellation()
    with enter(admission, 100), ThreadPoolExecutor(1) as pool:
        left = pool.submit(enter, admission, 100, cancellation)
        assert eventually(lambda: admission.counts()[1] == 1)
        cancellation.cancel()
        assert isinstance(left.exception(WAIT_S), Cancelled)
        with pytest.raises(GlmServeError), admission.admit(100, Deadline.after(0.05), Cancellation()):
            pass
        assert admission.counts() == (1, 0, 100)


def test_who_comes_with_no_time_left_does_not_stay_in_the_line() -> None:
    admission = Admission(100, 9, 9)
    with enter(admission, 100):
        with pytest.raises(DeadlineExceeded), admission.admit(100, Deadline.after(-1), Cancellation()):
            pass
        assert admission.counts() == (1, 0, 100)
    assert admission.counts() == (0, 0, 0)


def test_a_service_that_is_full_answers_503_with_the_time_to_come_back(
    build: Path, says: Callable[..., list[Chunk]], image: str
) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    settings = GatewaySettings(build=build, admission_tokens=1, max_waiting=0)
    client = create_app(settings, backend).test_client()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, client, image)
        assert eventually(lambda: bool(backend.requests))
        response = ask(client, image)
        assert_problem(response, 503, "busy")
        assert int(response.headers["Retry-After"]) >= 1
        assert backend.gate is not None
        backend.gate.set()
        assert running.result(WAIT_S).status_code == 200
    assert ask(client, image).status_code == 200


def test_who_would_wait_past_the_deadline_is_refused_at_once_and_who_would_not_waits() -> None:
    """The answers seen so far took 2 s each."""
    admission = Admission(100, 9, 9)
    for _ in range(3):
        admission.observe_answer(50, 50, 0.0, 2.0)
    with admission.admit(100, Deadline.after(10), Cancellation(), 50):
        began = time.monotonic()
        with pytest.raises(Overloaded), admission.admit(100, Deadline.after(3), Cancellation(), 50):
            pass
        assert time.monotonic() - began < 1  # who waits does so to the deadline
        with ThreadPoolExecutor(1) as pool:
            cancellation = Cancellation()
            waits = pool.submit(enter, admission, 100, cancellation)
            assert eventually(lambda: admission.counts()[1] == 1)
            cancellation.cancel()
            assert isinstance(waits.exception(WAIT_S), Cancelled)


def test_a_departure_gives_its_room_back_before_its_thread_notices() -> None:
    admission = Admission(100, 9, 9)
    for _ in range(50):
        cancellations = [Cancellation() for _ in range(4)]
        held = [enter(admission, 25, cancellation) for cancellation in cancellations]
        for cancellation in cancellations:
            cancellation.cancel()
        assert admission.counts() == (0, 0, 0)
        enter(admission, 100).close()
        for stack in held:
            stack.close()
    assert admission.counts() == (0, 0, 0)


def test_what_answers_took_is_learned_from_their_timings(
    build: Path, says: Callable[..., list[Chunk]], image: str
) -> None:
    """Each answer says that it took 20 s; the next one that has to wait has 5 s."""
    *pieces, last = says()
    backend = FakeBackend([*pieces, replace(last, timings_ms=(0.0, 0.0, 0.0, 20_000.0))])
    settings = GatewaySettings(build=build, admission_tokens=1, deadline_s=5)
    client = create_app(settings, backend).test_client()
    assert ask(client, image).status_code == 200
    backend.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, client, image)
        assert eventually(lambda: len(backend.requests) == 2)
        began = time.monotonic()
        response = ask(client, image)
        assert_problem(response, 503, "busy")
        assert time.monotonic() - began < 1
        assert int(response.headers["Retry-After"]) >= 1
        backend.gate.set()
        assert running.result(WAIT_S).status_code == 200


def test_it_is_closed_once_the_smallest_request_would_be_refused() -> None:
    """Found out without its size, so that nobody need count the tokens of what will be refused."""
    admission, leave = Admission(100, 9, 1), Cancellation()
    admission.check_open()
    running = enter(admission, 100)
    admission.check_open()  # one may wait
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(enter, admission, 1, leave)
        assert eventually(lambda: admission.counts()[1] == 1)
        _assert_closed(admission)
        leave.cancel()
        assert isinstance(waiting.exception(), Cancelled)
    admission.check_open()
    running.close()


def test_it_is_closed_while_as_many_run_as_there_may_be() -> None:
    admission = Admission(100, 1, 9)
    with enter(admission, 1):
        _assert_closed(admission)
    admission.check_open()


def _assert_closed(admission: Admission) -> None:
    for ask_in in (admission.check_open, lambda: enter(admission, 1)):
        with pytest.raises(Overloaded):
            ask_in()
