"""A wall clock that is set by an hour, forward or back: nobody is locked out, nothing is negative, deadlines hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from samples import URL

from gateway.app import create_app
from gateway.deadline import Deadline, seconds_since
from gateway.limits.api_keys import create_key
from gateway.limits.rate_limit import RateLimitCounters
from gateway.settings import GatewaySettings

HOUR_S = 3600.0
LIMIT = 3
SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the wall clock by so many seconds; the monotonic one goes on."""
    true = time.time

    def set_by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true() + seconds)

    return set_by


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
def test_a_minute_stays_a_minute(by_s: float, set_clock: SetClock) -> None:
    rates = RateLimitCounters("")
    before = [rates.hit(LIMIT, "key", "requests") for _ in range(LIMIT + 1)]
    assert [has_room for has_room, _ in before] == [True] * LIMIT + [False]
    set_clock(by_s)
    after = [rates.hit(LIMIT, "key", "requests") for _ in range(2 * LIMIT)]
    assert after[0][0] and not after[-1][0]  # at most one window more, and it is counted
    assert all(0 <= left.remaining <= LIMIT and 1 <= left.reset_s <= 60 for _, left in before + after)
    set_clock(by_s + 121)
    assert rates.hit(LIMIT, "key", "requests")[0]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
def test_a_deadline_neither_ends_early_nor_late(by_s: float, set_clock: SetClock) -> None:
    deadline = Deadline.after(20)
    set_clock(by_s)
    assert 19 < deadline.left_s() <= 20


def test_a_start_that_lies_ahead_takes_nothing_from_a_deadline(set_clock: SetClock) -> None:
    start = f"t={time.time()}"
    set_clock(-HOUR_S)
    assert seconds_since(start) == 0


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
def test_a_key_stays_good(by_s: float, build: Path, backend: FakeBackend, tmp_path: Path, set_clock: SetClock) -> None:
    key = create_key(tmp_path / "keys.json", "one")
    client = create_app(GatewaySettings(build=build, keys_file=tmp_path / "keys.json"), backend).test_client()
    for seconds in (0.0, by_s):
        set_clock(seconds)
        body = {"prompt": "Hi", "image": ""}
        assert client.post(URL, json=body, headers={"X-API-Key": key}).status_code == 400  # and no 401
        assert client.post(URL, json=body, headers={"X-API-Key": f"{key}x"}).status_code == 401
