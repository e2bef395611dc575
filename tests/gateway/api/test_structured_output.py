"""What an answer must match, in every field that clients say it in, becomes one rule for the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import ask_openai, assert_problem

from glmserve.answer_rules import AnswerRules, TextRule

SCHEMA = {"type": "object", "properties": {"颜色": {"type": "string"}}}
LARK = 'start: "a" | "b"'
PLAIN = {"type": "object"}
OUTPUTS = "structured_outputs."
TAG = {"structures": [{"begin": "<f=a>", "schema": SCHEMA, "end": "</f>"}], "triggers": ["<f="]}


def sent_rule(backend: FakeBackend) -> TextRule | None:
    packed = backend.requests[-1].grammar
    return AnswerRules.read(packed).text if packed else None


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"structured_outputs": {"json": SCHEMA}}, TextRule("json_schema", SCHEMA, OUTPUTS + "json")),
        (
            {"structured_outputs": {"json": json.dumps(SCHEMA)}},
            TextRule("json_schema", SCHEMA, "structured_outputs.json"),
        ),
        ({"structured_outputs": {"regex": r"\d+"}}, TextRule("regex", r"\d+", OUTPUTS + "regex")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, TextRule("choice", ["a", "b"], OUTPUTS + "choice")),
        ({"structured_outputs": {"grammar": LARK}}, TextRule("grammar", LARK, OUTPUTS + "grammar")),
        (
            {"structured_outputs": {"json_object": True}},
            TextRule("json_schema", PLAIN, "structured_outputs.json_object"),
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "json_object": False, "disable_any_whitespace": True}},
            TextRule("json_schema", SCHEMA, OUTPUTS + "json", is_compact=True),
        ),
        ({"structured_outputs": {"structural_tag": TAG}}, TextRule("structural_tag", TAG, OUTPUTS + "structural_tag")),
        ({"guided_json": SCHEMA}, TextRule("json_schema", SCHEMA, "guided_json")),
        ({"guided_json": json.dumps(SCHEMA)}, TextRule("json_schema", SCHEMA, "guided_json")),
        ({"guided_regex": "a+"}, TextRule("regex", "a+", "guided_regex")),
        ({"guided_choice": ["a"]}, TextRule("choice", ["a"], "guided_choice")),
        ({"guided_grammar": LARK}, TextRule("grammar", LARK, "guided_grammar")),
        ({"regex": "a+"}, TextRule("regex", "a+", "regex")),
        ({"ebnf": 'root ::= "a"'}, TextRule("grammar", 'root ::= "a"', "ebnf")),
        ({"grammar": 'root ::= "a"'}, TextRule("grammar", 'root ::= "a"', "grammar")),
        ({"json_schema": SCHEMA}, TextRule("json_schema", SCHEMA, "json_schema")),
        ({"structured_outputs": None, "response_format": {"type": "text"}, "guided_choice": None}, None),
        ({"response_format": {"type": "text"}, "guided_regex": "a"}, TextRule("regex", "a", "guided_regex")),
    ],
)
def test_every_way_to_ask_for_a_shape_is_one_rule(
    client: FlaskClient, backend: FakeBackend, image: str, fields: dict[str, Any], rule: TextRule | None
) -> None:
    assert ask_openai(client, image, **fields).status_code == 200
    assert sent_rule(backend) == rule


@pytest.mark.parametrize(
    ("wanted", "kind", "value"),
    [
        ({"type": "json_object", "schema": SCHEMA}, "json_schema", SCHEMA),
        ({"type": "json_object", "value": SCHEMA}, "json_schema", SCHEMA),
        ({"type": "json", "value": SCHEMA}, "json_schema", SCHEMA),
        ({"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}, "json_schema", SCHEMA),
        ({"type": "json_schema", "schema": SCHEMA}, "json_schema", SCHEMA),
        ({"type": "regex", "regex": "a+"}, "regex", "a+"),
        ({"type": "regex", "pattern": "a+"}, "regex", "a+"),
        ({"type": "regex", "value": "a+"}, "regex", "a+"),
        ({"type": "grammar", "grammar": LARK}, "grammar", LARK),
        ({"type": "ebnf", "ebnf": LARK}, "grammar", LARK),
        ({"type": "lark", "value": LARK}, "grammar", LARK),
        ({"type": "structural_tag", **TAG}, "structural_tag", TAG),
    ],
)
def test_a_response_format_is_read_as_others_have_it(
    client: FlaskClient, backend: FakeBackend, image: str, wanted: dict[str, Any], kind: Any, value: Any
) -> None:
    assert ask_openai(client, image, response_format=wanted).status_code == 200
    assert sent_rule(backend) == TextRule(kind, value, "response_format")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("structured_outputs", {"structured_outputs": {}}),
        ("structured_outputs", {"structured_outputs": {"json_object": False}}),
        ("structured_outputs", {"structured_outputs": {"regex": "a", "choice": ["a"]}}),
        ("structured_outputs.structural_tag", {"structured_outputs": {"structural_tag": "{}"}}),
        ("structured_outputs.structural_tag", {"structured_outputs": {"structural_tag": {"format": {}}}}),
        ("structured_outputs.structural_tag", {"structured_outputs": {"structural_tag": {**TAG, "triggers": ["x"]}}}),
        ("structured_outputs", {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " *"}}),
        ("structured_outputs", {"structured_outputs": "json"}),
        (OUTPUTS + "json", {"structured_outputs": {"json": "no JSON"}}),
        ("structured_outputs.choice", {"structured_outputs": {"choice": []}}),
        ("guided_choice", {"guided_choice": []}),
        ("guided_choice", {"guided_choice": ["a", ""]}),
        ("guided_choice", {"guided_choice": "a"}),
        ("guided_regex", {"guided_regex": 5}),
        ("guided_json", {"guided_json": "[1]"}),
        ("guided_json", {"guided_json": [1]}),
        ("guided_grammar", {"guided_grammar": {"start": "a"}}),
        ("guided_regex", {"guided_json": SCHEMA, "guided_regex": "a"}),
        ("structured_outputs", {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
        ("response_format", {"response_format": {"type": "regex"}}),
        ("response_format", {"response_format": {"type": "regex", "grammar": "a"}}),
        ("response_format", {"response_format": {"type": "grammar"}}),
        ("response_format", {"response_format": {"type": "structural_tag", "structures": []}}),
        ("65536", {"guided_regex": "a" * 65537}),
        ("65536", {"guided_choice": ["a" * 600] * 120}),
    ],
)
def test_a_wrong_or_contradictory_rule_is_named(
    client: FlaskClient, image: str, field: str, fields: dict[str, Any]
) -> None:
    assert_problem(ask_openai(client, image, **fields), 400, field)
