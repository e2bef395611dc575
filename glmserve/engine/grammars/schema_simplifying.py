"""Rewrites a JSON Schema that says more than llguidance reads, where the same can be said in what it reads."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from glmserve.engine.grammars.schema_rewriting import each_schema
from glmserve.model.schema_check import admits
from glmserve.model.schema_types import Steps, TooMuchSchema, resolved, types_of

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
)
"""Those that llguidance holds a text to. Any other is a note, as JSON Schema has it."""
_MOST_CHOICES = 128


def simplified(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without formats that are notes, and with `anyOf` for each `oneOf` of which two can never match."""
    steps = Steps()

    def simplify(part: dict[str, Any]) -> dict[str, Any]:
        if isinstance(part.get("format"), str) and part["format"] not in _FORMATS:
            part = {name: value for name, value in part.items() if name != "format"}
        if "oneOf" in part and "anyOf" not in part and _exclude_one_another(part["oneOf"], schema, steps):
            return {"anyOf" if name == "oneOf" else name: value for name, value in part.items()}
        return part

    simple: dict[str, Any] = each_schema(schema, simplify)
    return simple


def _exclude_one_another(choices: Any, root: Any, steps: Steps) -> bool:
    if not isinstance(choices, list) or not 0 < len(choices) <= _MOST_CHOICES:
        return False
    try:
        return all(_apart(one, other, root, steps) for one, other in combinations(choices, 2))
    except TooMuchSchema:
        return False


def _apart(one: Any, other: Any, root: Any, steps: Steps) -> bool:
    """Whether no value matches both, as far as their types, their values and what their objects must have tell."""
    with steps:
        types = types_of(one, root, steps) & types_of(other, root, steps)
        if not types:
            return True
        one, other = _followed(one, root, steps), _followed(other, root, steps)
        if not isinstance(one, dict) or not isinstance(other, dict):
            return False
        for values, schema in ((_values(one), other), (_values(other), one)):
            if values and not any(admits(schema, value, root, steps) for value in values):
                return True
        shared = _required(one).keys() & _required(other).keys() if types == {"object"} else ()
        return any(_apart(_required(one)[name], _required(other)[name], root, steps) for name in shared)


def _followed(schema: Any, root: Any, steps: Steps) -> Any:
    """What a reference leads to."""
    while isinstance(schema, dict) and "$ref" in schema:
        with steps:
            schema = resolved(schema["$ref"], root)
    return schema


def _values(schema: dict[str, Any]) -> list[Any]:
    """The only values that a schema allows, if it lists them."""
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else []


def _required(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties that an object must have, and what is declared of them."""
    properties, names = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(names, list):
        return {}
    return {name: properties[name] for name in names if isinstance(name, str) and name in properties}
