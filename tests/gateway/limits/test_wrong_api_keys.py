"""Two thousand wrong keys: none passes, none leaves anything behind, and the time they take tells nothing."""

from __future__ import annotations

import gc
import secrets
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from werkzeug.test import EnvironBuilder, run_wsgi_app

from gateway.app import create_app
from gateway.limits.api_keys import KeyStore, create_key
from gateway.settings import GatewaySettings

ATTEMPTS = 2000
ADDRESS_LIMIT = 10**6
MOST_BYTES_LEFT = 64 * 1024  # 32 for each attempt: not even a digest would fit


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    """A file of keys, and the one key in it."""
    file = tmp_path / "keys.json"
    return file, create_key(file, "shop")


def client_of(build: Path, backend: FakeBackend, file: Path) -> FlaskClient:
    settings = GatewaySettings(build=build, keys_file=file, address_requests_per_minute=ADDRESS_LIMIT)
    return create_app(settings, backend).test_client()


def guesses(secret: str) -> list[str]:
    """Keys of the right form, keys that are almost the right one, and what is no key at all."""
    almost = [secret[:i] + ("x" if secret[i] != "x" else "y") + secret[i + 1 :] for i in range(4, len(secret))]
    odd = [secret[:-1], secret + "0", secret.upper(), secret.swapcase(), "glm-", "0", "null", "é" * 40, "a" * 4000]
    return [*almost, *odd, *(f"glm-{secrets.token_urlsafe(32)}" for _ in range(ATTEMPTS - len(almost) - len(odd)))]


@pytest.mark.slow
def test_none_of_two_thousand_wrong_keys_passes_or_leaves_anything_behind(
    build: Path, backend: FakeBackend, key: tuple[Path, str]
) -> None:
    client = client_of(build, backend, key[0])
    asked = EnvironBuilder(
        "/v1/tokenize", method="POST", content_type="application/json", environ_overrides={"REMOTE_ADDR": "203.0.113.7"}
    ).get_environ()

    def ask(secret: str) -> int:
        with capture_logs():  # thrown away, or the log itself would be what grows
            _, status, _ = run_wsgi_app(client.application, asked | {"HTTP_X_API_KEY": secret}, buffered=True)
        return int(status.split()[0])

    wrong = guesses(key[1])
    assert len(wrong) == ATTEMPTS
    tracemalloc.start()
    try:
        assert {ask(secret) for secret in wrong[:100]} == {401}
        before = held_bytes()  # what is made once is there now
        assert {ask(secret) for secret in wrong} == {401}
        assert held_bytes() - before < MOST_BYTES_LEFT
    finally:
        tracemalloc.stop()
    assert ask(key[1]) == 400  # the right one is let in, and then asked for a body


def held_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_the_time_a_wrong_key_takes_does_not_tell_how_much_of_it_is_right(key: tuple[Path, str]) -> None:
    store, secret = KeyStore(key[0]), key[1]
    first, last = f"x{secret[1:]}", f"{secret[:-1]}{'x' if secret[-1] != 'x' else 'y'}"
    pairs = [(taken_s(store.find, first), taken_s(store.find, last)) for _ in range(20_000)]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    assert abs(ours - theirs) < 5e-6


def taken_s(find: Callable[[str], object], secret: str) -> float:
    began = time.perf_counter()
    assert find(secret) is None
    return time.perf_counter() - began
