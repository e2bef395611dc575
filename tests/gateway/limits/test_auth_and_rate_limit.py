"""Who may come in and how often: keys, addresses, proxies, rates, and what every response carries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from pydantic import ValidationError
from samples import URL, ask, assert_problem
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.limits.api_keys import create_key, revoke_key
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk

Script = Callable[..., list[Chunk]]
FAR = "203.0.113.7"
WAIT_S = 10


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def app_of(build: Path, backend: FakeBackend, **settings: Any) -> FlaskClient:
    return create_app(GatewaySettings(build=build, **settings), backend).test_client()


def post(client: FlaskClient, image: str, address: str = FAR, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"image": image, "prompt": "Hi"}
    return client.post(URL, json=body, headers=named, environ_overrides={"REMOTE_ADDR": address})


@pytest.mark.parametrize("bind", ["0.0.0.0:5000", "[::]:5000", "192.168.1.4:80", "example.com:80", ":5000"])
def test_an_address_that_others_reach_needs_keys_or_a_word(bind: str, keys: Path) -> None:
    with pytest.raises(ValidationError, match="NO_AUTH"):
        GatewaySettings(bind=bind)
    GatewaySettings(bind=bind, no_auth=True)
    GatewaySettings(bind=bind, keys_file=keys)


@pytest.mark.parametrize("bind", ["127.0.0.1:5000", "localhost:5000", "[::1]:5000", "unix:/run/glm.sock"])
def test_loopback_needs_neither(bind: str) -> None:
    assert GatewaySettings(bind=bind).bind == bind


def test_a_key_opens_by_either_header(build: Path, backend: FakeBackend, keys: Path, image: str) -> None:
    secret = create_key(keys, "shop")
    client = app_of(build, backend, keys_file=keys)
    assert post(client, image, Authorization=f"Bearer {secret}").status_code == 200
    assert post(client, image, X_API_Key=secret).status_code == 200


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer glm-wrong"}, {"X_API_Key": "x"}, {"Authorization": "Basic eDp5"}]
)
def test_without_a_valid_key_nothing_is_answered(
    build: Path, backend: FakeBackend, keys: Path, image: str, header: dict[str, str]
) -> None:
    create_key(keys, "shop")
    response = post(app_of(build, backend, keys_file=keys), image, "127.0.0.1", **header)
    assert_problem(response, 401, "key")
    assert response.headers["WWW-Authenticate"] == "Bearer" and not backend.requests


def test_health_needs_no_key_and_openai_clients_get_their_own_error(
    build: Path, backend: FakeBackend, keys: Path
) -> None:
    client = app_of(build, backend, keys_file=keys)
    assert client.get("/health/live").status_code == 200
    error = client.get("/v1/models").get_json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


def test_a_key_for_metrics_may_not_ask(build: Path, backend: FakeBackend, keys: Path, image: str) -> None:
    secret = create_key(keys, "watcher", "metrics")
    assert_problem(post(app_of(build, backend, keys_file=keys), image, X_API_Key=secret), 403, "metrics")


@pytest.mark.slow
def test_a_revoked_key_is_locked_out(build: Path, backend: FakeBackend, keys: Path, image: str) -> None:
    secret = create_key(keys, "shop")
    client = app_of(build, backend, keys_file=keys)
    assert post(client, image, X_API_Key=secret).status_code == 200
    revoke_key(keys, "shop")
    give_up = time.monotonic() + WAIT_S
    while post(client, image, X_API_Key=secret).status_code != 401:
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_keys_do_not_share_a_cache_and_their_names_are_logged(
    build: Path, backend: FakeBackend, keys: Path, image: str
) -> None:
    secrets = [create_key(keys, name) for name in ("one", "two")]
    client = app_of(build, backend, keys_file=keys)
    with capture_logs() as logs:
        for secret in (*secrets, secrets[0]):
            post(client, image, X_API_Key=secret)
    scopes = [request.cache_scope for request in backend.requests]
    assert scopes[0] == scopes[2] != scopes[1] and 0 not in scopes
    assert [event["key"] for event in logs] == ["one", "two", "one"]
    assert not any(secret in str(logs) for secret in secrets)


def test_only_listed_networks_come_in(build: Path, backend: FakeBackend, image: str) -> None:
    client = app_of(build, backend, allowed_addresses="203.0.113.0/24, 2001:db8::/32")
    assert post(client, image, FAR).status_code == 200
    assert post(client, image, "2001:db8::7").status_code == 200
    assert post(client, image, "::ffff:203.0.113.9").status_code == 200
    assert_problem(post(client, image, "198.51.100.1"), 403, "address")


def test_a_forged_forwarded_for_does_not_pass(build: Path, backend: FakeBackend, image: str) -> None:
    listed = {"allowed_addresses": "203.0.113.0/24"}
    direct, proxied = (app_of(build, backend, trusted_proxies=n, **listed) for n in (0, 1))
    assert post(direct, image, "198.51.100.1", X_Forwarded_For=FAR).status_code == 403
    assert post(proxied, image, "10.0.0.1", X_Forwarded_For=FAR).status_code == 200
    assert post(proxied, image, "10.0.0.1", X_Forwarded_For=f"{FAR}, 198.51.100.1").status_code == 403
    assert post(proxied, image, "10.0.0.1", X_Forwarded_For="nonsense").status_code == 403
    assert post(proxied, image, "10.0.0.1").status_code == 403


def test_requests_a_minute_are_counted_and_told(build: Path, backend: FakeBackend, image: str) -> None:
    client = app_of(build, backend, requests_per_minute=2)
    first, second, third = (post(client, image) for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("2", "1")
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert post(client, image, "203.0.113.8").status_code == 200


def test_a_key_has_limits_of_its_own(build: Path, backend: FakeBackend, keys: Path, image: str) -> None:
    small, large = create_key(keys, "small", requests_per_minute=1), create_key(keys, "large")
    client = app_of(build, backend, keys_file=keys)
    assert [post(client, image, X_API_Key=small).status_code for _ in range(2)] == [200, 429]
    assert post(client, image, X_API_Key=large).status_code == 200


def test_image_tokens_a_minute_are_counted_before_decoding(build: Path, backend: FakeBackend, image: str) -> None:
    tokens = post(app_of(build, backend), image).get_json()["usage"]["image_tokens"]
    client = app_of(build, backend, image_tokens_per_minute=tokens)
    assert post(client, image).status_code == 200
    assert_problem(post(client, image), 429, "image tokens")
    assert len(backend.requests) == 2


def test_image_tokens_of_a_request_that_is_refused_are_not_used_up(
    build: Path, backend: FakeBackend, keys: Path, image: str
) -> None:
    tokens = post(app_of(build, backend), image).get_json()["usage"]["image_tokens"]
    small, large = create_key(keys, "small", image_tokens_per_minute=tokens - 1), create_key(keys, "large")
    full = app_of(build, backend, keys_file=keys, address_image_tokens_per_minute=tokens)
    assert_problem(post(full, image, X_API_Key=small), 429, "image tokens")
    assert_problem(post(full, image, X_API_Key=small), 429, "wait is in vain: send fewer or smaller images")
    assert post(full, image, X_API_Key=large).status_code == 200  # the refusal took nothing from their address


def test_image_tokens_are_not_used_up_while_the_service_is_full(
    build: Path, says: Script, backend: FakeBackend, image: str
) -> None:
    tokens = post(app_of(build, backend), image).get_json()["usage"]["image_tokens"]
    busy = FakeBackend(says(), gate=threading.Event())
    client = app_of(build, busy, image_tokens_per_minute=tokens, admission_tokens=1, max_waiting=0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, client, image, "203.0.113.8")
        assert eventually(lambda: bool(busy.requests))
        assert [post(client, image).status_code for _ in range(2)] == [503, 503]
        assert busy.gate is not None
        busy.gate.set()
        assert running.result(WAIT_S).status_code == 200
    assert post(client, image).status_code == 200


def test_wrong_keys_use_up_their_addresss_patience(build: Path, backend: FakeBackend, keys: Path, image: str) -> None:
    client = app_of(build, backend, keys_file=keys, address_requests_per_minute=3)
    codes = [post(client, image, X_API_Key=f"glm-{i}").status_code for i in range(4)]
    assert codes == [401, 401, 401, 429]


def test_an_ipv6_line_is_one_caller_however_many_addresses_it_has(
    build: Path, backend: FakeBackend, image: str
) -> None:
    client = app_of(build, backend, requests_per_minute=2)
    codes = [post(client, image, f"2001:db8:1:2::{i}").status_code for i in range(3)]
    assert codes == [200, 200, 429]
    assert post(client, image, "2001:db8:1:3::1").status_code == 200


def test_requests_at_a_time_are_counted_until_a_stream_has_ended(build: Path, backend: FakeBackend, image: str) -> None:
    client = app_of(build, backend, concurrent_requests=1)
    body = {"image": image, "prompt": "Hi", "stream": True}
    far = {"REMOTE_ADDR": FAR}
    running = client.post(URL, json=body, environ_overrides=far)
    assert_problem(post(client, image), 429, "at a time")
    running.close()
    assert post(client, image).status_code == 200


@pytest.mark.parametrize("path", [URL, "/v1/chat/completions", "/v1/tokenize"])
def test_a_body_is_not_looked_into_before_its_caller_has_a_place(
    path: str, build: Path, backend: FakeBackend, image: str
) -> None:
    client = app_of(build, backend, concurrent_requests=1)
    far = {"REMOTE_ADDR": FAR}

    def wrong() -> TestResponse:
        return client.post(path, data="[" * 9_000, content_type="application/json", environ_overrides=far)

    body = {"image": image, "prompt": "Hi", "stream": True}
    running = client.post(URL, json=body, environ_overrides=far)
    assert wrong().status_code == 429
    running.close()
    assert wrong().status_code == 400


def test_an_address_has_limits_whatever_keys_come_from_it(
    build: Path, backend: FakeBackend, keys: Path, image: str
) -> None:
    one, two = create_key(keys, "one"), create_key(keys, "two")
    tokens = post(app_of(build, backend), image).get_json()["usage"]["image_tokens"]
    client = app_of(build, backend, keys_file=keys, address_image_tokens_per_minute=tokens)
    assert post(client, image, X_API_Key=one).status_code == 200
    assert_problem(post(client, image, X_API_Key=two), 429, "address")
    assert post(client, image, "203.0.113.8", X_API_Key=two).status_code == 200

    client = app_of(build, backend, keys_file=keys, address_concurrent_requests=1)
    body = {"image": image, "prompt": "Hi", "stream": True}
    running = client.post(URL, json=body, headers={"X-API-Key": one}, environ_overrides={"REMOTE_ADDR": FAR})
    assert_problem(post(client, image, X_API_Key=two), 429, "at a time")
    assert post(client, image, "203.0.113.8", X_API_Key=two).status_code == 200
    running.close()
    assert post(client, image, X_API_Key=two).status_code == 200


_ONE = {"requests_per_minute": 1, "concurrent_requests": 1, "image_tokens_per_minute": 10_000}


def test_the_owner_of_the_machine_is_not_counted_where_the_settings_say_so(
    build: Path, backend: FakeBackend, image: str
) -> None:
    client = app_of(build, backend, exempt_loopback=True, **{**_ONE, "image_tokens_per_minute": 1})
    assert [ask(client, image).status_code for _ in range(3)] == [200] * 3


def test_callers_from_loopback_are_counted_unless_the_settings_say_otherwise(
    build: Path, backend: FakeBackend, image: str
) -> None:
    """A proxy on this machine may add no header, and then everybody seems to come from here."""
    client = app_of(build, backend, **_ONE)
    assert [post(client, image, "127.0.0.1").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    "sign",
    [
        {"X_Forwarded_For": FAR},
        {"X_Forwarded_Proto": "https"},
        {"X_Forwarded_Host": "shop.example"},
        {"X_Real_IP": FAR},
        {"Forwarded": f"for={FAR}"},
        {"Via": "1.1 proxy"},
        {"Host": "shop.example"},
        {"Host": "127.0.0.1.shop.example"},
    ],
)
def test_callers_behind_a_proxy_that_nobody_named_are_counted(
    build: Path, backend: FakeBackend, image: str, sign: dict[str, str]
) -> None:
    client = app_of(build, backend, exempt_loopback=True, no_auth=True, **_ONE)
    assert [post(client, image, "127.0.0.1", **sign).status_code for _ in range(2)] == [200, 429]


def test_health_checks_come_from_the_allowed_networks_or_this_machine(build: Path, backend: FakeBackend) -> None:
    client = app_of(build, backend, allowed_addresses="203.0.113.0/24")

    def probe(address: str, **headers: str) -> int:
        return client.get("/health/live", environ_overrides={"REMOTE_ADDR": address}, headers=headers).status_code

    assert (probe(FAR), probe("127.0.0.1")) == (200, 200)
    assert (probe("198.51.100.1"), probe("127.0.0.1", Via="1.1 proxy")) == (403, 403)


@pytest.mark.parametrize("path", ["/health/live", "/v1/models", "/nothing"])
def test_every_response_is_hardened(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"


def test_listed_sites_may_call_from_a_browser_and_others_not(build: Path, backend: FakeBackend) -> None:
    client = app_of(build, backend, cors_origins="https://shop.example")
    ours = client.options(URL, headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"})
    assert ours.status_code == 204 and ours.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "X-API-Key" in ours.headers["Access-Control-Allow-Headers"]
    other = client.options(URL, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_listed_site_may_send_what_its_library_sends_along(build: Path, backend: FakeBackend) -> None:
    client = app_of(build, backend, cors_origins="https://shop.example")
    wanted = {"Access-Control-Request-Headers": "authorization, x-stainless-os, traceparent, bad name, a\tb"}
    response = client.options(URL, headers={"Origin": "https://shop.example", **wanted})
    allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"X-API-Key", "x-stainless-os", "traceparent"} <= set(allowed)
    assert not {"bad name", "a\tb"} & set(allowed)
    other = client.options(URL, headers={"Origin": "https://evil.example", **wanted})
    assert "Access-Control-Allow-Headers" not in other.headers


@pytest.mark.parametrize("sent", ["0", "-1", "nan", "soon", "1e-9"])
def test_a_deadline_that_is_none_is_named(client: FlaskClient, image: str, sent: str) -> None:
    response = client.post(URL, json={"image": image, "prompt": "Hi"}, headers={"X-Request-Timeout": sent})
    assert_problem(response, 400, "X-Request-Timeout")


def test_a_client_may_shorten_its_deadline_but_not_prolong_it(
    client: FlaskClient, backend: FakeBackend, image: str
) -> None:
    for sent in ("2.5", "9999"):
        client.post(URL, json={"image": image, "prompt": "Hi"}, headers={"X-Request-Timeout": sent})
    assert backend.requests[0].deadline_s <= 2.5 < backend.requests[1].deadline_s <= 30
