"""A tool's parameters as a JSON Schema: which arguments a call may have, and the schema of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from glmserve.model.schema_types import Steps, TooMuchSchema, choices_of, parts_of

_MOST_SHAPES = 16


def argument_schema(parameters: Any, name: str, steps: Steps) -> Any:
    """What the parameters ask of one argument; references in it are to the parameters. Raises TooMuchSchema."""
    return _argument(parameters, name, parameters, steps)


def _argument(schema: Any, name: str, root: Any, steps: Steps) -> Any:
    with steps:
        if not isinstance(schema, dict):
            return schema
        properties, others = schema.get("properties"), schema.get("additionalProperties", True)
        asked = [properties[name] if isinstance(properties, dict) and name in properties else others]
        if "patternProperties" in schema and asked[0] is others:
            asked = []
        asked += [_argument(part, name, root, steps) for part in parts_of(schema, root)]
        for choices in choices_of(schema):
            asked.append({"anyOf": [_argument(choice, name, root, steps) for choice in choices]})
        asked = [each for each in asked if each is not True and each != {}]
        return asked[0] if len(asked) == 1 else {"allOf": asked} if asked else True


@dataclass
class CallShape:
    """One form that a call's arguments may have: their schemas in the order of their declaration."""

    arguments: dict[str, list[Any]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    others: list[Any] = field(default_factory=list)
    """What arguments that are not declared must match, where the parameters speak of any."""

    def joined(self, other: CallShape) -> CallShape:
        """The form that is both."""
        names = [*self.arguments, *(name for name in other.arguments if name not in self.arguments)]
        arguments = {name: self.arguments.get(name, []) + other.arguments.get(name, []) for name in names}
        return CallShape(arguments, self.required | other.required, self.others + other.others)

    def schema(self, name: str) -> Any:
        """What one declared argument must match."""
        asked = self.arguments[name]
        return asked[0] if len(asked) == 1 else {"allOf": asked}


def call_shapes(parameters: Any, steps: Steps) -> list[CallShape]:
    """Every form that the arguments may have: one, unless the parameters are a choice. Raises TooMuchSchema."""
    return _shapes(parameters, parameters, steps)


def _shapes(schema: Any, root: Any, steps: Steps) -> list[CallShape]:
    with steps:
        if not isinstance(schema, dict):
            return [CallShape()]
        factors = [[_own_shape(schema)]]
        factors += [_shapes(part, root, steps) for part in parts_of(schema, root)]
        for choices in choices_of(schema):
            factors.append([shape for choice in choices for shape in _shapes(choice, root, steps)])
        shapes: list[CallShape] = []
        for combination in product(*factors):
            if len(shapes) == _MOST_SHAPES:
                raise TooMuchSchema
            shape = CallShape()
            for part in combination:
                shape = shape.joined(part)
            shapes.append(shape)
        return shapes


def _own_shape(schema: dict[str, Any]) -> CallShape:
    properties, required = schema.get("properties"), schema.get("required")
    shape = CallShape()
    if isinstance(properties, dict):
        shape.arguments = {name: [asked] for name, asked in properties.items()}
    if isinstance(required, list):
        shape.required = {name for name in required if isinstance(name, str)}
    others = schema.get("additionalProperties", False)
    if others is not False:
        shape.others = [others]
    return shape
