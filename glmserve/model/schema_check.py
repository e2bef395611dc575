"""Whether a JSON value matches a JSON Schema, found out in a bounded number of steps.

The schema is a caller's, and the value is what a model wrote: nothing of either may keep the gateway busy. So patterns
and formats, and what refers to other documents, are taken to match.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from glmserve.model.schema_types import Steps, choices_of, parts_of, type_of


def admits(schema: Any, value: Any, root: Any, steps: Steps) -> bool:
    """Whether the value matches; `root` is the document of the schema's references. Raises TooMuchSchema."""
    return _Check(root, steps).admits(schema, value)


class _Check:
    def __init__(self, root: Any, steps: Steps) -> None:
        self._root = root
        self._steps = steps
        self._by_type: dict[str, Callable[[dict[str, Any], Any], bool]] = {
            "number": _number_fits,
            "string": _string_fits,
            "array": self._array_fits,
            "object": self._object_fits,
        }

    def admits(self, schema: Any, value: Any) -> bool:
        with self._steps:
            if not isinstance(schema, dict):
                return schema is not False
            fits = self._by_type.get(type_of(value))
            return (
                _is_of_type(schema, value)
                and (fits is None or fits(schema, value))
                and all(self.admits(part, value) for part in parts_of(schema, self._root))
                and all(self._one_fits(choices, value) for choices in choices_of(schema))
                and self._conditions_fit(schema, value)
            )

    def _one_fits(self, choices: list[Any], value: Any) -> bool:
        return any(self.admits(choice, value) for choice in choices)

    def _conditions_fit(self, schema: dict[str, Any], value: Any) -> bool:
        one_of = schema.get("oneOf")
        if isinstance(one_of, list) and sum(self.admits(choice, value) for choice in one_of) > 1:
            return False
        if "not" in schema and self.admits(schema["not"], value):
            return False
        if "if" not in schema:
            return True
        branch = "then" if self.admits(schema["if"], value) else "else"
        return self.admits(schema.get(branch, True), value)

    def _array_fits(self, schema: dict[str, Any], value: list[Any]) -> bool:
        items = schema.get("items", True)
        first = schema.get("prefixItems", items if isinstance(items, list) else [])
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        first = first if isinstance(first, list) else []
        return (
            _is_within(len(value), schema, "minItems", "maxItems")
            and all(self.admits(item, each) for item, each in zip(first, value, strict=False))
            and all(self.admits(rest, each) for each in value[len(first) :])
            and self._contents_fit(schema, value)
            and not (schema.get("uniqueItems") is True and self._has_doubles(value))
        )

    def _contents_fit(self, schema: dict[str, Any], value: list[Any]) -> bool:
        if "contains" not in schema:
            return True
        count = sum(self.admits(schema["contains"], each) for each in value)
        return _is_within(count, {"minContains": 1} | schema, "minContains", "maxContains")

    def _has_doubles(self, value: list[Any]) -> bool:
        for i, one in enumerate(value):
            for other in value[:i]:
                with self._steps:
                    if _is_same(one, other):
                        return True
        return False

    def _object_fits(self, schema: dict[str, Any], value: dict[str, Any]) -> bool:
        properties = _mapping(schema, "properties")
        others = schema.get("additionalProperties", True)
        if "patternProperties" in schema:
            others = True
        dependent = _mapping(schema, "dependencies") | _mapping(schema, "dependentSchemas")
        needed = dependent | _mapping(schema, "dependentRequired")
        return (
            _is_within(len(value), schema, "minProperties", "maxProperties")
            and _has_all(value, schema.get("required"))
            and all(self.admits(properties.get(name, others), each) for name, each in value.items())
            and all(self.admits(schema.get("propertyNames", True), name) for name in value)
            and all(_has_all(value, names) for name, names in needed.items() if name in value)
            and all(self.admits(part, value) for name, part in dependent.items() if name in value)
        )


def _is_of_type(schema: dict[str, Any], value: Any) -> bool:
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if type_of(value) not in named and not ("integer" in named and _is_whole(value)):
            return False
    if "const" in schema and not _is_same(schema["const"], value):
        return False
    enum = schema.get("enum")
    return not isinstance(enum, list) or any(_is_same(each, value) for each in enum)


def _is_whole(value: Any) -> bool:
    return type_of(value) == "number" and value == int(value)


def _is_same(one: Any, other: Any) -> bool:
    """As JSON sees it: 1 is 1.0, and neither is true."""
    if type_of(one) != type_of(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _number_fits(schema: dict[str, Any], value: float) -> bool:
    least, most = _number(schema, "minimum"), _number(schema, "maximum")
    above, below = _number(schema, "exclusiveMinimum"), _number(schema, "exclusiveMaximum")
    above = least if schema.get("exclusiveMinimum") is True else above
    below = most if schema.get("exclusiveMaximum") is True else below
    step = _number(schema, "multipleOf")
    return (
        (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
        and (not step or Fraction(str(value)) % Fraction(str(step)) == 0)
    )


def _string_fits(schema: dict[str, Any], value: str) -> bool:
    return _is_within(len(value), schema, "minLength", "maxLength")


def _is_within(count: int, schema: dict[str, Any], least: str, most: str) -> bool:
    at_least, at_most = _number(schema, least), _number(schema, most)
    return (at_least is None or count >= at_least) and (at_most is None or count <= at_most)


def _number(schema: dict[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(schema: dict[str, Any], name: str) -> dict[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _has_all(value: dict[str, Any], names: Any) -> bool:
    return not isinstance(names, list) or all(name in value for name in names if isinstance(name, str))
