"""Which types of value a JSON Schema allows, looked up through references and combinations of schemas."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})
"""JSON's own types; a schema's `integer` is one of `number`."""
_MOST_STEPS = 20_000
_MOST_DEPTH = 64


class TooMuchSchema(Exception):
    """Looking further would take too long: the schema refers to itself, or doubles at each step."""


class Steps:
    """The steps left for one look at a schema, so that no schema can keep us busy."""

    def __init__(self, most: int = _MOST_STEPS) -> None:
        self._left = most
        self._depth = 0

    def __enter__(self) -> None:
        self._left -= 1
        self._depth += 1
        if self._left < 0 or self._depth > _MOST_DEPTH:
            raise TooMuchSchema

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def type_of(value: object) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def types_of(schema: Any, root: Any, steps: Steps) -> frozenset[str]:
    """The types of value that a schema allows, or more: keywords of values are not looked at.

    `root` is the document in which its references are looked up. Raises TooMuchSchema.
    """
    with steps:
        if not isinstance(schema, dict):
            return frozenset() if schema is False else TYPES
        found = _own_types(schema)
        for part in parts_of(schema, root):
            found &= types_of(part, root, steps)
        for choices in choices_of(schema):
            found &= frozenset().union(*(types_of(choice, root, steps) for choice in choices))
        return found


def parts_of(schema: dict[str, Any], root: Any) -> list[Any]:
    """The schemas that a value must match beside this one: those it refers to, and `allOf`."""
    parts = [] if "$ref" not in schema else [resolved(schema["$ref"], root)]
    every = schema.get("allOf")
    return parts + (every if isinstance(every, list) else [])


def choices_of(schema: dict[str, Any]) -> list[list[Any]]:
    """The lists of which a value must match one schema each: `anyOf` and `oneOf`."""
    lists = [schema.get(name) for name in ("anyOf", "oneOf")]
    return [choices for choices in lists if isinstance(choices, list) and choices]


def resolved(reference: object, root: Any) -> Any:
    """The schema that a reference names; True, which allows everything, where it is not in this document."""
    try:
        return referred(reference, root)
    except LookupError:
        return True


def referred(reference: object, root: Any) -> Any:
    """The schema that a reference names; raises LookupError where it is not in this document."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise LookupError
    found = root
    for name in reference[1:].split("/")[1:]:
        name = unquote(name).replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) and not (isinstance(found, list) and name.isdecimal()):
            raise LookupError
        found = found[name] if isinstance(found, dict) else found[int(name)]
    return found


def _own_types(schema: dict[str, Any]) -> frozenset[str]:
    found = TYPES
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        found &= frozenset("number" if name == "integer" else str(name) for name in named)
    if "const" in schema:
        found &= {type_of(schema["const"])}
    if isinstance(schema.get("enum"), list):
        found &= frozenset(map(type_of, schema["enum"]))
    return found
