"""Requests refused while no Triton is up are told when one is likely back."""

from __future__ import annotations

import socket

import pytest

from bench.ports import free_port
from gateway.triton.load_balancer import LoadBalancer
from gateway.triton.outages import Outages
from glmserve.errors import BackendDown


class _Dead:
    """A Triton that is down until told otherwise."""

    is_down = True

    def generate(self, _request: object) -> None:
        raise AssertionError

    def models_ready(self) -> bool:
        return not self.is_down

    def close(self) -> None: ...


def test_the_wait_is_what_is_left_of_the_longest_outage_so_far() -> None:
    outages = Outages()
    for length_s in (2.0, 20.0, 3.0):
        outages.ended(length_s)
    assert [outages.retry_after_s(down_s) for down_s in (0.0, 5.5, 19.9)] == [20, 15, 1]


def test_a_triton_that_stays_away_longer_than_ever_is_asked_for_less_and_less_often() -> None:
    outages = Outages()
    outages.ended(2.0)
    assert [outages.retry_after_s(down_s) for down_s in (2.0, 4.0, 8.0, 1000.0)] == [2, 4, 8, 30]


def test_nobody_is_sent_away_for_less_than_a_second_or_more_than_thirty() -> None:
    outages = Outages()
    assert 1 <= outages.retry_after_s(0.0) <= 30
    outages.ended(900.0)
    assert outages.retry_after_s(0.0) == 30


def _refused(balancer: LoadBalancer) -> int | None:
    with pytest.raises(BackendDown) as refused, balancer.choose():
        raise BackendDown
    return refused.value.retry_after_s


def test_the_wait_shrinks_while_the_only_triton_is_down_and_learns_from_the_last_outage() -> None:
    now, triton = [0.0], _Dead()
    balancer = LoadBalancer("grpc://10.0.0.1:8001", lambda _url: triton, shuffle=lambda _: None, clock=lambda: now[0])
    first = _refused(balancer)
    now[0] = 2.0
    second = _refused(balancer)
    assert first and second and second == first - 2
    now[0], triton.is_down = 12.0, False
    balancer.ask()
    triton.is_down = True
    assert _refused(balancer) == 12


def test_a_request_that_another_triton_could_have_answered_is_told_nothing_of_a_restart() -> None:
    balancer = LoadBalancer("grpc://10.0.0.1:8001,grpc://10.0.0.2:8001", lambda _url: _Dead(), shuffle=lambda _: None)
    assert _refused(balancer) is None
    assert _refused(balancer) is not None


def test_a_port_that_nobody_listens_on_is_a_triton_that_is_not_up() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        url = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        balancer = LoadBalancer(url, lambda _url: _Dead())
        assert balancer.count_up() == 1
    assert balancer.count_up() == 0
