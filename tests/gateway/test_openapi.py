"""The OpenAPI document says what is served, no more and no less."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from samples import ask

from gateway.app import create_app
from gateway.backend import FakeBackend
from gateway.openai_schemas import CompletionBody
from gateway.schemas import VisionBody
from gateway.settings import GatewaySettings

PAGES = {"/", "/docs", "/openapi.json"}


@pytest.fixture
def api(client: FlaskClient) -> dict[str, Any]:
    return dict(client.get("/openapi.json").get_json())


def test_it_names_every_address_and_method_that_is_served(
    settings: GatewaySettings, backend: FakeBackend, api: dict[str, Any]
) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in create_app(settings, backend).url_map.iter_rules()
        if rule.rule not in PAGES and not rule.rule.startswith("/page/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == {(path, method) for path, methods in api["paths"].items() for method in methods}


def test_its_bodies_are_the_models_that_read_requests(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]
    assert set(schemas["VisionBody"]["properties"]) == set(VisionBody.model_fields)
    assert set(schemas["CompletionBody"]["properties"]) == set(CompletionBody.model_fields)
    assert all(field.get("description") for field in schemas["VisionBody"]["properties"].values())
    assert all(field.get("description") for field in schemas["CompletionBody"]["properties"].values())


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(api)))
    assert names <= set(api["components"]["schemas"])


def test_answers_have_the_fields_it_promises(client: FlaskClient, api: dict[str, Any], picture: str) -> None:
    def check(name: str, body: dict[str, Any]) -> None:
        assert set(api["components"]["schemas"][name]["required"]) <= set(body)

    check("VisionAnswer", ask(client, picture).get_json())
    check("VisionProblem", ask(client, "%").get_json())
    messages = {"messages": [{"role": "user", "content": "Hi"}]}
    check("Completion", client.post("/v1/chat/completions", json=messages).get_json())
    check("Problem", client.post("/v1/chat/completions", json={}).get_json())
    check("Models", client.get("/v1/models").get_json())
    check("Model", client.get("/v1/models").get_json()["data"][0])
    check("TokenCount", client.post("/v1/tokenize", json=messages).get_json())
    check("Health", client.get("/health/ready").get_json())


@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.js", "/page/words.js", "/page/style.css", "/page/docs.js"])
def test_pages_need_nothing_from_elsewhere_and_run_nothing_inline(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200 and "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"https?://|<script>|style=|onclick=", response.text)


@pytest.mark.parametrize("path", ["/page/", "/page/index.html", "/page/../app.py", "/page/%2e%2e/app.py"])
def test_nothing_else_is_served_from_the_disk(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404
