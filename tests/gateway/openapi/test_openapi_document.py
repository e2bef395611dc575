"""The OpenAPI document says what is served, no more and no less."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from pydantic import BaseModel
from samples import ask

from gateway.api.completions.body import TextBody
from gateway.api.llama_cpp.body import LlamaBody
from gateway.api.messages.body import AskingBody, CountBody
from gateway.api.responses.body import ResponsesBody
from gateway.api.tokens.body import DetokenizeBody, TokenizeBody
from gateway.app import create_app
from gateway.schemas.openai import CompletionBody
from gateway.schemas.vision import VisionBody
from gateway.settings import GatewaySettings

OTHER_BODIES = (TextBody, LlamaBody, ResponsesBody, AskingBody, CountBody, TokenizeBody, DetokenizeBody)
PAGES = {"/", "/docs", "/openapi.json"}
API_PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text("utf-8")


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The document, once a test has asked for it: making it takes as long as ten other requests."""
    return {}


@pytest.fixture
def api(client: FlaskClient, kept: dict[str, Any]) -> dict[str, Any]:
    if not kept:
        kept.update(client.get("/openapi.json").get_json())
    return copy.deepcopy(kept)


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


def test_fields_say_what_they_mean_and_what_they_must_be_required_ones_first(api: dict[str, Any]) -> None:
    for body, first in ((VisionBody, ["image", "prompt"]), (CompletionBody, ["messages"])):
        fields = api["components"]["schemas"][body.__name__]["properties"]
        assert list(fields)[: len(first)] == first
        for name, field in fields.items():
            must = body.model_fields[name].description
            meaning, said, rest = field["description"].partition(f" It must be {must}.")
            assert meaning.endswith(".") and said and not rest, name


def test_defaults_are_those_that_an_absent_field_has(
    client: FlaskClient, backend: FakeBackend, api: dict[str, Any], image: str
) -> None:
    assert '"default": null' not in json.dumps(api)
    fields = api["components"]["schemas"]["VisionBody"]["properties"]
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    assert {"max_tokens": 512, "temperature": 0.7, "stream": False, "thinking": False}.items() <= defaults.items()
    for sent in ({}, defaults):
        assert ask(client, image, seed=1, **sent).status_code == 200
    absent, written = backend.requests
    assert (absent.sampling, absent.grammar) == (written.sampling, written.grammar)
    assert np.array_equal(absent.input_ids, written.input_ids)


def test_defaults_are_those_of_the_api_page(api: dict[str, Any]) -> None:
    fields = api["components"]["schemas"]["VisionBody"]["properties"]
    words = {"none": None, "random": None, "required": None, "text": {"type": "text"}}
    table = API_PAGE.partition("### Fields")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", table, re.MULTILINE)
    told = {
        name: words[default] if default in words else json.loads(default)
        for names, defaults in rows
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=True)
    }
    assert len(told) > 15 and told == {name: fields[name].get("default") for name in told}


def test_whether_completions_think_unasked_is_told(build: Path, backend: FakeBackend) -> None:
    app = create_app(GatewaySettings(build=build, thinking=True), backend)
    schemas = app.test_client().get("/openapi.json").get_json()["components"]["schemas"]
    assert schemas["CompletionBody"]["properties"]["thinking"]["default"] is True
    assert schemas["VisionBody"]["properties"]["thinking"]["default"] is False


@pytest.mark.parametrize("body", OTHER_BODIES, ids=lambda body: body.__name__)
def test_the_bodies_of_other_routes_are_told_field_by_field(api: dict[str, Any], body: type[BaseModel]) -> None:
    """Those that a route leaves out on purpose say so too."""
    fields = api["components"]["schemas"][body.__name__]["properties"]
    assert set(fields) == set(body.model_fields)
    for name, field in fields.items():
        meaning, said, rest = field["description"].partition(f" It must be {body.model_fields[name].description}.")
        assert meaning.endswith(".") and said and not rest, name


def test_a_form_has_the_same_fields(api: dict[str, Any]) -> None:
    content = api["paths"]["/v1/chat/vision"]["post"]["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert set(form["properties"]) == set(VisionBody.model_fields)
    assert form["properties"]["image"]["format"] == "binary" and form["properties"]["max_tokens"]["minimum"] == 1
    assert form["properties"]["stop"]["contentMediaType"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/chat/vision", "/v1/chat/completions"])
def test_the_example_of_a_request_is_answered_like_the_example_of_an_answer(
    client: FlaskClient, api: dict[str, Any], path: str
) -> None:
    operation = api["paths"][path]["post"]
    response = client.post(path, json=operation["requestBody"]["content"]["application/json"]["example"])
    assert response.status_code == 200
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    body = response.get_json()
    assert set(shown) <= set(body) and set(shown["usage"]) <= set(body["usage"])
    assert shown["usage"]["prompt_tokens"] == body["usage"]["prompt_tokens"]


def test_answers_have_no_field_that_it_does_not_know(client: FlaskClient, api: dict[str, Any], image: str) -> None:
    schemas = api["components"]["schemas"]
    options = {"logprobs": True, "thinking": True}
    assert set(ask(client, image, **options).get_json()) <= set(schemas["VisionAnswer"]["properties"])
    assert set(ask(client, "%").get_json()) == set(schemas["VisionProblem"]["properties"])
    assert set(client.get("/v1/models").get_json()["data"][0]) == set(schemas["Model"]["properties"])


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(api)))
    assert names <= set(api["components"]["schemas"])


def test_answers_have_the_fields_it_promises(client: FlaskClient, api: dict[str, Any], image: str) -> None:
    def check(name: str, body: dict[str, Any]) -> None:
        assert set(api["components"]["schemas"][name]["required"]) <= set(body)

    check("VisionAnswer", ask(client, image).get_json())
    check("VisionProblem", ask(client, "%").get_json())
    messages = {"messages": [{"role": "user", "content": "Hi"}]}
    check("Completion", client.post("/v1/chat/completions", json=messages).get_json())
    check("Problem", client.post("/v1/chat/completions", json={}).get_json())
    check("Models", client.get("/v1/models").get_json())
    check("Model", client.get("/v1/models").get_json()["data"][0])
    check("TokenCount", client.post("/v1/tokenize", json=messages).get_json())
    check("Health", client.get("/health/ready").get_json())


def test_every_sentence_of_the_document_stands_in_chinese_too(client: FlaskClient) -> None:
    """As the page of the API looks a sentence up: numbers stand apart, and so does what a field must be."""
    page = Path(__file__).resolve().parents[3] / "gateway" / "page" / "docs" / "zh.js"
    chinese = json.loads(page.read_text("utf-8").partition("SENTENCES = ")[2].rstrip().rstrip(";"))
    said = {part for text in _sentences(client.get("/openapi.json").get_json()) for part in text.split(" It must be ")}
    needed = {re.sub(r"\d+(\.\d+)?", "#", part) for part in said}
    assert needed - chinese.keys() == set(), "gateway/page/docs/zh.js lacks these"
    assert chinese.keys() - needed == set(), "gateway/page/docs/zh.js has these for nothing"
    assert [key for key, text in chinese.items() if key.count("#") != text.count("#")] == []


def _sentences(part: Any) -> set[str]:
    if isinstance(part, list):
        return {text for each in part for text in _sentences(each)}
    if not isinstance(part, dict):
        return set()
    own = {text for key, text in part.items() if key in ("summary", "description") and isinstance(text, str)}
    return own | {text for each in part.values() for text in _sentences(each)}
