"""A request that another gateway has already kept for a while has only the rest of its deadline."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from samples import assert_problem

from gateway.app import create_app
from gateway.settings import GatewaySettings

URL = "/v1/chat/vision"


@pytest.mark.parametrize(
    ("proxies", "age_s", "least_s", "most_s"),
    [(1, 20, 9, 10.1), (0, 20, 29, 30), (1, -20, 29, 30), (1, 0, 29, 30)],
)
def test_what_the_first_gateway_took_is_gone(
    build: Path, backend: FakeBackend, image: str, proxies: int, age_s: float, least_s: float, most_s: float
) -> None:
    client = create_app(GatewaySettings(build=build, trusted_proxies=proxies), backend).test_client()
    headers = {"X-Request-Start": f"t={time.time() - age_s:.3f}", "X-Forwarded-For": "10.1.2.3"}
    assert client.post(URL, json={"image": image, "prompt": "Hi"}, headers=headers).status_code == 200
    assert least_s < backend.requests[0].deadline_s <= most_s


def test_a_request_whose_time_is_over_is_not_begun_anew(build: Path, backend: FakeBackend, image: str) -> None:
    client = create_app(GatewaySettings(build=build, trusted_proxies=1), backend).test_client()
    headers = {"X-Request-Start": f"t={time.time() - 40:.3f}", "X-Forwarded-For": "10.1.2.3"}
    assert_problem(client.post(URL, json={"image": image, "prompt": "Hi"}, headers=headers), 504, "too long")
    assert backend.requests == []


@pytest.mark.parametrize("sent", ["", "t=", "soon", "t=nan", "t=-inf", "t=1e400"])
def test_a_malformed_start_changes_nothing(build: Path, backend: FakeBackend, image: str, sent: str) -> None:
    client = create_app(GatewaySettings(build=build, trusted_proxies=1), backend).test_client()
    headers = {"X-Request-Start": sent, "X-Forwarded-For": "10.1.2.3"}
    assert client.post(URL, json={"image": image, "prompt": "Hi"}, headers=headers).status_code == 200
    assert backend.requests[0].deadline_s > 29
