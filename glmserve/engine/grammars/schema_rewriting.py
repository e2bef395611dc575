"""Rewrites a JSON Schema before it becomes a grammar: parts of it that stand alone, and objects without surprises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glmserve.model.schema_types import referred

_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_NO_SCHEMAS = ("const", "enum", "default", "examples")
_ROOT = "parameters"
_MORE_PROPERTIES = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames")
_MORE_SCHEMAS = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas")


def standing_alone(schema: Any, root: Any) -> Any:
    """A schema out of a document, as a document of its own: what it refers to comes along.

    Raises LookupError for a reference that leads nowhere.
    """
    moved = _moved(schema, root)
    if moved == schema:
        return schema
    return {**moved, "$defs": {_ROOT: _moved(root, root)}}


def check_references(schema: Any) -> None:
    """Raises LookupError for a reference that leads nowhere in this document."""
    _moved(schema, schema)


def closed(schema: Any) -> Any:
    """The schema whose objects have no properties but those that it declares, where it does not say whether they may.

    A model would invent some, and need not come to an end of them. A schema that puts objects together from several
    schemas stays as it is, for each of these would exclude the others' properties.
    """
    if any(_is_put_together(each) for each in _schemas(schema)):
        return schema
    return each_schema(schema, _closed_object)


def _is_put_together(schema: dict[str, Any]) -> bool:
    every = schema.get("allOf")
    if isinstance(every, list) and len(every) > 1:
        return True
    return "properties" in schema and any(name in schema for name in _MORE_SCHEMAS)


def _closed_object(schema: dict[str, Any]) -> dict[str, Any]:
    properties, required = schema.get("properties"), schema.get("required", [])
    if not properties or not isinstance(properties, dict) or any(name in schema for name in _MORE_PROPERTIES):
        return schema
    if not isinstance(required, list) or not all(isinstance(name, str) and name in properties for name in required):
        return schema
    return {**schema, "additionalProperties": False}


def _moved(schema: Any, root: Any) -> Any:
    def move(part: dict[str, Any]) -> dict[str, Any]:
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return part
        referred(reference, root)
        return {**part, "$ref": f"#/$defs/{_ROOT}{reference[1:]}"}

    return each_schema(schema, move)


def each_schema(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The document with every schema in it changed, the innermost first."""
    if isinstance(schema, list):
        return [each_schema(each, change) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _MAPS and isinstance(value, dict):
            inner[name] = {key: each_schema(each, change) for key, each in value.items()}
        else:
            inner[name] = value if name in _NO_SCHEMAS else each_schema(value, change)
    return change(inner)


def _schemas(schema: Any) -> list[dict[str, Any]]:
    """Every schema in a document."""
    found: list[dict[str, Any]] = []

    def note(part: dict[str, Any]) -> dict[str, Any]:
        found.append(part)
        return part

    each_schema(schema, note)
    return found
