"""The pages: small, without anything from elsewhere, and made of libraries that are what they say they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

FOLDER = Path(__file__).resolve().parents[3] / "gateway" / "page"
OWN = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".js", ".css"})
VENDORED = json.loads((FOLDER / "vendor" / "versions.json").read_text("utf-8"))
MOST_BYTES = 150_000
NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/page/{name}" for name in OWN)])
def test_pages_need_nothing_from_elsewhere_and_run_nothing_inline(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200 and "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"https?://|<script>|style=|onclick=", response.text.replace(NAMESPACE, ""))


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/index.html",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/vendor/",
        "/page/vendor/versions.json",
    ],
)
def test_nothing_else_is_served_from_the_disk(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_library_is_the_published_file_with_its_licence(client: FlaskClient, name: str) -> None:
    content = client.get(f"/page/vendor/{name}").data
    assert hashlib.sha256(content).hexdigest() == VENDORED[name]["sha256"]
    assert client.get(f"/page/vendor/{name.removesuffix('.js')}.LICENSE.txt").status_code == 200


def test_the_whole_chat_is_small(client: FlaskClient) -> None:
    sent = ["/", "/page/style.css", "/page/chat.css", *(f"/page/{name}" for name in OWN if name.endswith(".js"))]
    sent += [f"/page/vendor/{name}" for name in VENDORED]
    answers = [client.get(path, headers={"Accept-Encoding": "gzip"}) for path in sent]
    assert all(answer.headers["Content-Encoding"] == "gzip" for answer in answers)
    assert sum(len(answer.data) for answer in answers) <= MOST_BYTES


def test_who_takes_no_gzip_gets_the_same_file_as_it_is(client: FlaskClient) -> None:
    plain, packed = client.get("/"), client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers and gzip.decompress(packed.data) == plain.data
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"


def test_a_browser_that_has_a_file_is_told_so(client: FlaskClient) -> None:
    tag = client.get("/page/chat.js").headers["ETag"]
    again = client.get("/page/chat.js", headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.data == b""
