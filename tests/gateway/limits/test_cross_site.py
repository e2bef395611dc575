"""Without keys, another site's page cannot use the gateway of whoever looks at it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import URL, assert_problem
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.settings import GatewaySettings

ROUTES = (URL, "/v1/chat/completions", "/v1/tokenize")


def app_of(build: Path, backend: FakeBackend, **settings: Any) -> FlaskClient:
    return create_app(GatewaySettings(build=build, **settings), backend).test_client()


def post(client: FlaskClient, image: str, headers: dict[str, str]) -> TestResponse:
    return client.post(URL, json={"image": image, "prompt": "Hi"}, headers=headers)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5000", "localhost:5000", "LOCALHOST", "localhost.", "[::1]:5000", "127.8.8.8", "a.localhost"]
)
def test_this_machines_own_names_are_answered(client: FlaskClient, image: str, host: str) -> None:
    assert post(client, image, {"Host": host}).status_code == 200
    assert post(client, image, {"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.nip.example", "localhost.evil.example", "10.0.0.7", "[::"]
)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics", "/docs"])
def test_a_name_that_was_resolved_to_this_machine_by_others_is_refused(
    client: FlaskClient, backend: FakeBackend, host: str, path: str
) -> None:
    response = client.get(path, headers={"Host": host})
    assert response.status_code == 403 and b"localhost" in response.data
    assert not backend.requests


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "https://localhost", "http://localhost.evil"]
)
def test_another_sites_page_is_refused(client: FlaskClient, backend: FakeBackend, image: str, origin: str) -> None:
    assert_problem(post(client, image, {"Origin": origin}), 403, "another site")
    form = {"image": (BytesIO(b"x"), "x.png"), "prompt": "Hi"}
    assert client.post(URL, data=form, headers={"Origin": origin}).status_code == 403
    assert not backend.requests


def test_a_listed_sites_page_is_answered(build: Path, backend: FakeBackend, image: str) -> None:
    client = app_of(build, backend, cors_origins="https://shop.example")
    assert post(client, image, {"Origin": "https://shop.example"}).status_code == 200
    assert post(client, image, {"Origin": "https://shop.example.evil"}).status_code == 403


def test_with_keys_or_the_owners_word_every_name_is_answered(
    build: Path, backend: FakeBackend, image: str, tmp_path: Path
) -> None:
    foreign = {"Host": "glm.example", "Origin": "https://shop.example"}
    assert post(app_of(build, backend, no_auth=True), image, foreign).status_code == 200
    secret = create_key(tmp_path / "keys.json", "shop")
    client = app_of(build, backend, keys_file=tmp_path / "keys.json")
    assert post(client, image, {**foreign, "X-API-Key": secret}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None, "application/jsonp", "a/b"])
@pytest.mark.parametrize("path", ROUTES)
def test_what_a_page_may_send_without_asking_is_not_read(
    client: FlaskClient, backend: FakeBackend, path: str, kind: str | None
) -> None:
    response = client.post(path, data=b'{"prompt": "Hi"}', content_type=kind)
    assert response.status_code == 415 and b"application/json" in response.data
    assert not backend.requests


def test_only_the_vision_route_reads_forms(client: FlaskClient) -> None:
    for kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        codes = [client.post(path, data={"a": "b"}, content_type=kind).status_code for path in ROUTES]
        assert codes == [400, 415, 415]


def test_an_address_that_is_none_stays_none_whatever_is_sent(client: FlaskClient) -> None:
    assert client.post("/nothing", data=b"x", content_type="text/plain").status_code == 404
