"""The grammar of tool calls in the model's own format: a function's name, then its arguments in order.

A text argument stands there as it is, any other as JSON. Marks are control tokens, which no text can hold.
"""

from __future__ import annotations

from typing import Any

from glmserve.answer_rules import OfferedTool
from glmserve.engine.grammars.lark import ANYTHING, holding, json_value, literal
from glmserve.engine.grammars.schema_rewriting import check_references, standing_alone
from glmserve.errors import InvalidInput
from glmserve.model.schema_types import (
    TYPES,
    Steps,
    TooMuchSchema,
    choices_of,
    parts_of,
    types_of,
)
from glmserve.model.tool_parser import CALL_CLOSE, CALL_OPEN, KEY_CLOSE, KEY_OPEN, VALUE_CLOSE, VALUE_OPEN
from glmserve.model.tool_schema import CallShape, call_shapes

_KEY = r"/[^\n]{1,64}/"


class CallGrammar:
    """Rules in Lark for the calls of several tools; `called` is one call of any of them."""

    def __init__(self, needed: bool) -> None:
        """`needed`: every tool's arguments must match its schema, not those of strict tools only."""
        self._needed = needed
        self._calls: list[str] = []
        self._rules: dict[str, str] = {}  # a rule's body -> its name

    def add(self, tool: OfferedTool) -> None:
        """Raises InvalidInput where no grammar can say what the tool's parameters must be."""
        is_held = self._needed or tool.is_strict
        forms = self._forms(tool) if is_held else [f"{self._argument(_KEY, ANYTHING)}*"]
        self._calls.append(f"{literal(tool.name + chr(10))} ({' | '.join(forms)})")

    def text(self) -> str:
        """The rules."""
        named = "".join(f"{name}: {body}\n" for body, name in self._rules.items())
        return f"called: {CALL_OPEN} ({' | '.join(self._calls)}) {CALL_CLOSE}\n{named}{ANYTHING}: /(?s:.*)/\n"

    def _forms(self, tool: OfferedTool) -> list[str]:
        cannot = f"The JSON Schema in {tool.field} cannot be turned into a grammar: it"
        steps = Steps()
        try:
            check_references(tool.parameters)
            return [self._arguments(shape, tool, steps) for shape in call_shapes(tool.parameters, steps)]
        except LookupError:
            raise InvalidInput(f"{cannot} refers to what is not in it.", tool.field) from None
        except TooMuchSchema:
            raise InvalidInput(
                f"{cannot} refers to itself without end, or gives too many choices.", tool.field
            ) from None

    def _arguments(self, shape: CallShape, tool: OfferedTool, steps: Steps) -> str:
        written = []
        for name in [*shape.arguments, *sorted(shape.required - set(shape.arguments))]:
            schema = shape.schema(name) if name in shape.arguments else _all_of(shape.others)
            value = self._value(schema, tool, steps)
            if value is not None:
                written.append(self._argument(literal(name), value) + ("" if name in shape.required else "?"))
            elif name in shape.required:
                raise InvalidInput(f"The JSON Schema in {tool.field} allows no {name}, but needs it.", tool.field)
        others = self._value(_all_of(shape.others), tool, steps) if shape.others else None
        if others is not None:
            declared = " | ".join(map(literal, shape.arguments))
            key = f"{_KEY} & ~({declared})" if declared else _KEY
            written.append(self._argument(self._named(key, "KEY"), others) + "*")
        return " ".join(written) or '""'

    def _argument(self, key: str, value: str) -> str:
        return self._named(rf'{KEY_OPEN} {key} {KEY_CLOSE} "\n" {VALUE_OPEN} {value} {VALUE_CLOSE} "\n"', "pair")

    def _value(self, schema: Any, tool: OfferedTool, steps: Steps) -> str | None:
        """What may stand for an argument; None where nothing may."""
        if schema is False:
            return None
        root, forms = tool.parameters, []
        texts = _texts(schema, root, steps)
        if texts == "":
            return ANYTHING  # which says all that JSON could say
        if texts is not None:
            forms.append(self._named(texts, "TEXT"))
        types = types_of(schema, root, steps)
        others = types - {"string"}
        if others or not forms:
            narrowed = schema if others == types else {"allOf": [schema, {"type": sorted(others)}]}
            forms.append(self._named(json_value(standing_alone(narrowed, root), not tool.is_strict), "json"))
        return f"({' | '.join(forms)})"

    def _named(self, body: str, kind: str) -> str:
        """The name of a rule, or of a terminal where `kind` is in capitals, with this body."""
        return self._rules.setdefault(body, f"{kind}_{len(self._rules)}")


def _all_of(schemas: list[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"allOf": schemas} if schemas else True


def _texts(schema: Any, root: Any, steps: Steps) -> str | None:
    """The texts that a schema allows, as the body of a terminal: empty for all, None for none."""
    with steps:
        if not isinstance(schema, dict):
            return None if schema is False else ""
        asked = [_own_texts(schema), *(_texts(part, root, steps) for part in parts_of(schema, root))]
        for choices in choices_of(schema):
            found = [_texts(choice, root, steps) for choice in choices]
            some = [each for each in found if each is not None]
            asked.append("" if "" in some else " | ".join(f"({each})" for each in some) if some else None)
        if None in asked:
            return None
        return " & ".join(f"({each})" for each in asked if each)


def _own_texts(schema: dict[str, Any]) -> str | None:
    asked = []
    named = schema.get("type", [*TYPES])
    if "string" not in (named if isinstance(named, list) else [named]):
        return None
    if "const" in schema or isinstance(schema.get("enum"), list):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        texts = [literal(value) for value in values if isinstance(value, str)]
        if not texts:
            return None
        asked.append(" | ".join(texts))
    if isinstance(schema.get("pattern"), str):
        asked.append(holding(schema["pattern"]))
    least, most = (schema.get(name) for name in ("minLength", "maxLength"))
    if isinstance(least, int) or isinstance(most, int):
        asked.append(rf"/(?s:.){{{least or 0},{'' if most is None else most}}}/")
    return " & ".join(f"({each})" for each in asked)
