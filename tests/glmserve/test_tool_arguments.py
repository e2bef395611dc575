"""An argument is what its schema says: text that the schema allows stays text, however the schema says so."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.schemas.json_reader import parse_json
from glmserve.model.schema_check import admits
from glmserve.model.schema_types import Steps, TooMuchSchema
from glmserve.model.tool_parser import RawCall, typed_call

TEXTS = ["1", "true", "null", "1e5", "[1]", '{"a": 1}', "-0.5", "北京"]
DEFS = {"text": {"type": "string"}, "deep": {"$ref": "#/$defs/text"}, "a/b%c": {"type": "string"}}


def argument(text: str, schema: Any, **parameters: Any) -> Any:
    tool = {"function": {"name": "f", "parameters": {"properties": {"x": schema}, **parameters}}}
    return typed_call(RawCall("f", (("x", text),)), (tool,)).arguments["x"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": ["string"]},
        {"anyOf": [{"type": "string"}]},
        {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 0}]},
        {"allOf": [{}, {"type": "string"}]},
        {"allOf": [{"type": ["string", "integer"]}, {"type": ["string", "array"]}]},
        {"$ref": "#/$defs/text"},
        {"$ref": "#/$defs/deep"},
        {"$ref": "#/$defs/a~1b%25c"},
        {"anyOf": [{"$ref": "#/$defs/deep"}, {"type": "string", "format": "date"}]},
        {"enum": ["a", "b"]},
        {"const": "a"},
        {"anyOf": [{"enum": TEXTS}, {"const": "z"}]},
    ],
)
@pytest.mark.parametrize("text", TEXTS)
def test_where_a_schema_allows_texts_only_every_text_stays_one(schema: Any, text: str) -> None:
    assert argument(text, schema, **{"$defs": DEFS}) == text


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "1", "1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"type": ["string", "null"]}, "true", "true"),
        ({"type": ["string", "integer"]}, "1", 1),
        ({"type": ["string", "integer"]}, "1.5", "1.5"),
        ({"enum": ["1", 2]}, "1", "1"),
        ({"enum": ["1", 2]}, "2", 2),
        ({"const": 5}, "5", 5),
        ({"type": ["string", "array"], "items": {"type": "integer"}}, "[1]", [1]),
        ({"type": ["string", "array"], "items": {"type": "integer"}}, '["a"]', '["a"]'),
        ({"anyOf": [{"type": "string"}, {"type": "object", "required": ["b"]}]}, '{"a": 1}', '{"a": 1}'),
        ({"anyOf": [{"type": "string"}, {"type": "number", "minimum": 5}]}, "3", "3"),
        ({"type": "string"}, '"quoted"', '"quoted"'),
        ({"enum": ["quoted"]}, '"quoted"', "quoted"),
        ({"type": "integer", "minimum": 5}, "3", 3),
        ({"not": {"type": "integer"}}, "3", "3"),
        ({"type": "integer"}, "1, 2", "1, 2"),
    ],
)
def test_of_text_and_value_the_one_that_fits_is_taken(schema: Any, text: str, value: Any) -> None:
    found = argument(text, schema)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#/$defs/P", "$defs": {"P": {"properties": {"x": {"type": "string"}}}}},
        {"allOf": [{"properties": {"y": {}}}, {"properties": {"x": {"type": "string"}}}]},
        {"anyOf": [{"properties": {"x": {"type": "string"}}}, {"properties": {"x": {"enum": ["a"]}}}]},
        {"additionalProperties": {"type": "string"}},
        {"properties": {"y": {}}, "additionalProperties": {"type": ["string", "null"]}},
    ],
)
def test_an_arguments_schema_is_found_wherever_it_stands(parameters: Any) -> None:
    tool = {"function": {"name": "f", "parameters": parameters}}
    assert typed_call(RawCall("f", (("x", "1"),)), (tool,)).arguments == {"x": "1"}


_REFERENCE = jsonschema_rs.Draft202012Validator


_TYPE = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
_COUNT = st.integers(0, 4)
_SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 2.0, -1e5, "", "a", "1", "null"])
_LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": _TYPE | st.lists(_TYPE, min_size=1, max_size=3, unique=True),
        "enum": st.lists(_SCALAR, min_size=1, max_size=3),
        "const": _SCALAR | st.lists(_SCALAR, max_size=2),
        "minimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 9),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": _COUNT,
        "maxLength": _COUNT,
        "minItems": _COUNT,
        "maxItems": _COUNT,
        "uniqueItems": st.booleans(),
        "minContains": _COUNT,
        "required": st.lists(st.sampled_from(["a", "b"]), unique=True),
        "maxProperties": _COUNT,
        "dependentRequired": st.just({"a": ["b"]}),
        "$ref": st.sampled_from(["#/$defs/s", "#/$defs/n"]),
        "format": st.just("date"),
        "description": st.text(max_size=3),
    },
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    more: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several)
    more |= dict.fromkeys(("not", "if", "then", "else", "items", "contains", "additionalProperties"), inner)
    more |= {"propertyNames": inner, "properties": named, "dependentSchemas": named}
    return st.builds(lambda one, other: one | other, _LEAVES, st.fixed_dictionaries({}, optional=more))


_SCHEMAS = st.recursive(_LEAVES | st.booleans(), _wider, max_leaves=6)
_WELL_FORMED = {"s": {"type": "string"}, "n": {"type": "number"}}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 2.0, -1e5]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=6,
)
_ANY_TEXT = st.text(max_size=12) | _JSON.map(json.dumps)
_SLOW = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@given(schema=_SCHEMAS, value=_JSON)
@_SLOW
def test_a_value_matches_a_schema_where_the_reference_says_so(schema: Any, value: Any) -> None:
    root = {"allOf": [schema], "$defs": _WELL_FORMED}
    assert admits(root, value, root, Steps()) == _REFERENCE(root).is_valid(value)


@pytest.mark.slow
@given(schema=_SCHEMAS, text=_ANY_TEXT)
@_SLOW
def test_text_stays_text_unless_only_the_value_matches(schema: Any, text: str) -> None:
    found = argument(text, schema, **{"$defs": _WELL_FORMED})
    check = _REFERENCE({"allOf": [schema], "$defs": _WELL_FORMED})
    try:
        value = parse_json(text)
    except ValueError:
        value = text
    fits = [each for each in (value, text) if check.is_valid(each)]
    if check.is_valid(text) and isinstance(value, str):
        assert found == text
    elif fits:
        assert found == fits[0] and type(found) is type(fits[0])


@pytest.mark.slow
@given(schema=_JSON, text=_ANY_TEXT)
@_SLOW
def test_what_is_no_schema_at_all_still_gives_an_argument(schema: Any, text: str) -> None:
    found = argument(text, schema)
    assert found == text or found == parse_json(text)


@pytest.mark.slow
@given(text=_ANY_TEXT, key=st.text(max_size=5))
@_SLOW
def test_every_call_can_be_sent_back(text: str, key: str) -> None:
    call = typed_call(RawCall("f", ((key, text),)), ())
    assert parse_json(json.dumps(call.arguments, ensure_ascii=False)) == call.arguments


@pytest.mark.parametrize("depth", [150, 198, 199, 200, 201])
def test_a_value_of_any_depth_can_be_sent_back(depth: int) -> None:
    call = typed_call(RawCall("f", (("x", "[" * depth + "]" * depth),)), ())
    assert parse_json(json.dumps(call.arguments)) == call.arguments


def test_more_values_than_a_request_may_hold_stay_text() -> None:
    text = "[" + ",".join("1" * 130_000) + "]"
    assert typed_call(RawCall("f", (("x", text),)), ()).arguments == {"x": text}


_DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)} | {"d60": {"type": "string"}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#"},
        {"properties": {"x": {"$ref": "#/properties/x"}}},
        {"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": _DOUBLING},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"properties": {"x": {"items": {"anyOf": [{"$ref": "#/properties/x"}, {"$ref": "#/properties/x"}]}}}},
        {"properties": {"x": {"uniqueItems": True}}},
    ],
)
def test_no_schema_keeps_the_reader_busy(parameters: Any) -> None:
    began_s = time.process_time()
    for text in ("1", "[" * 90 + "1" + "]" * 90, json.dumps(list(range(3000)))):
        tool = {"function": {"name": "f", "parameters": parameters}}
        assert typed_call(RawCall("f", (("x", text),)), (tool,)).arguments["x"] in (text, json.loads(text))
    assert time.process_time() - began_s < 1.0


def test_a_schema_without_end_is_told_apart() -> None:
    with pytest.raises(TooMuchSchema):
        admits({"$ref": "#"}, 1, {"$ref": "#"}, Steps())
