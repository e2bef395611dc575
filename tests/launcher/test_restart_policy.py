"""The first restart comes at once, further ones wait longer and longer, and too many in a while are the last."""

from __future__ import annotations

import pytest

from launcher.supervision.restart_policy import NoRestart, RestartPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_from_the_second_failure_on() -> None:
    policy = RestartPolicy(Clock(), most=5)
    assert [policy.failed() for _ in range(5)] == [0.0, 0.5, 1.0, 2.0, 4.0]


def test_more_failures_than_allowed_within_the_window_give_up() -> None:
    policy = RestartPolicy(Clock(), most=2)
    assert [policy.failed() for _ in range(3)] == [0.0, 0.5, None]


def test_a_failure_long_ago_counts_no_more() -> None:
    clock = Clock()
    policy = RestartPolicy(clock, most=2, window_s=60)
    for _ in range(10):
        assert policy.failed() == 0.0
        clock.now += 61


def test_a_part_that_serves_between_its_failures_is_always_started_again_at_once() -> None:
    clock = Clock()
    policy = RestartPolicy(clock)
    for _ in range(20):
        assert policy.failed(has_served=True) == 0.0
        clock.now += 10
    assert [policy.failed() for _ in range(3)] == [0.5, 1.0, 2.0]


def test_failures_without_end_are_given_up_even_if_it_serves_between_them() -> None:
    policy = RestartPolicy(Clock(), most_in_all=3)
    assert [policy.failed(has_served=True) for _ in range(4)] == [0.0, 0.0, 0.0, None]
    assert policy.too_often == "failed 4 times within 10 minutes"


def test_no_wait_is_longer_than_the_longest() -> None:
    policy = RestartPolicy(Clock(), most=20)
    assert max(policy.failed() or 0.0 for _ in range(20)) == policy.longest_wait_s


def test_a_restart_is_told_and_a_first_start_and_one_failure_too_many_are_the_last() -> None:
    policy, said = RestartPolicy(Clock(), most=1), list[str]()
    with pytest.raises(NoRestart, match=r"Triton failed to start: it has ended\."):
        policy.restart_in_s("Triton", "it has ended", False, True, said.append)
    assert policy.restart_in_s("Triton", "it has ended", True, False, said.append) == 0.0
    assert said == ["Triton failed: it has ended. Starting it again ..."]
    with pytest.raises(
        NoRestart, match=r"Triton failed 2 times within 10 minutes; the last time, it has ended\. Giving up"
    ):
        policy.restart_in_s("Triton", "it has ended", False, False, said.append)
