"""What a request may ask an answer's text to match, in the fields of OpenAI, vLLM, SGLang, TGI and llama.cpp."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from gateway.schemas.common import Body, ThinkingFields
from gateway.schemas.json_reader import parse_json
from glmserve.answer_rules import AnswerRules, CallRule, Kind, TextRule
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_GRAMMAR_BYTES, MAX_RULES_BYTES

ANY_OBJECT = {"type": "object"}
_MAX_CHOICES = 1024
_MAX_STRUCTURES = 128
_Pattern = Annotated[str, StringConstraints(min_length=1)]
_Choices = Annotated[list[_Pattern], Field(min_length=1, max_length=_MAX_CHOICES, fail_fast=True)]
_SCHEMA = "a JSON Schema, as an object or as text"
_GRAMMAR = "a grammar, as text: in Lark with a rule start, or in GBNF (EBNF with ::=) with a rule root"
_REGEX = "a regular expression without look-around, which the whole answer matches"


class NamedSchema(Body):
    """A JSON Schema as OpenAI wraps it."""

    schema_: dict[str, Any] = Field(alias="schema")


class Structure(Body):
    """What may stand in a text: its beginning, JSON that matches a schema, and its end."""

    begin: _Pattern
    schema_: dict[str, Any] = Field(alias="schema")
    end: str


class StructuralTag(Body):
    """SGLang's and vLLM's structures inside free text, each begun by one of the triggers."""

    structures: Annotated[list[Structure], Field(min_length=1, max_length=_MAX_STRUCTURES, fail_fast=True)]
    triggers: Annotated[list[_Pattern], Field(min_length=1, max_length=_MAX_STRUCTURES, fail_fast=True)]

    def rule(self, field: str) -> TextRule:
        """Raises InvalidInput for a structure that no trigger begins."""
        for structure in self.structures:
            if not structure.begin.startswith(tuple(self.triggers)):
                raise InvalidInput(f"Each begin in {field} must start with one of the triggers.", field)
        structures = [{"begin": each.begin, "schema": each.schema_, "end": each.end} for each in self.structures]
        return TextRule("structural_tag", {"structures": structures, "triggers": self.triggers}, field)


class ResponseFormat(Body):
    """What an answer must look like: as OpenAI says it, and as SGLang, TGI, llama.cpp and others do."""

    type: Literal["text", "json_object", "json_schema", "json", "regex", "grammar", "ebnf", "lark", "structural_tag"]
    structures: Any = None
    triggers: Any = None
    json_schema: NamedSchema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    value: dict[str, Any] | _Pattern | None = None
    regex: _Pattern | None = None
    pattern: _Pattern | None = None
    grammar: _Pattern | None = None
    ebnf: _Pattern | None = None
    lark: _Pattern | None = None

    def rule(self, field: str) -> TextRule | None:
        """None for free text; raises InvalidInput where what the type speaks of is missing."""
        if self.type == "text":
            return None
        if self.type == "structural_tag":
            return _tag({"structures": self.structures, "triggers": self.triggers}, field)
        if self.type in ("regex", "grammar", "ebnf", "lark"):
            given = [self.regex, self.pattern] if self.type == "regex" else [self.grammar, self.ebnf, self.lark]
            text = next((each for each in (*given, self.value) if isinstance(each, str)), None)
            if text is None:
                raise InvalidInput(f"The field {field} is of type {self.type} but has no {self.type}.", field)
            return TextRule("regex" if self.type == "regex" else "grammar", text, field)
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        if schema is None and self.value is not None:
            value = _object(self.value, field)
            schema = value["schema"] if isinstance(value.get("schema"), dict) else value
        if schema is None and self.type != "json_object":
            raise InvalidInput(f"The field {field} needs json_schema with a schema in it.", field)
        return TextRule("json_schema", ANY_OBJECT if schema is None else schema, field)


class StructuredOutputs(Body):
    """vLLM's field: one way to say what the answer must match."""

    json_: dict[str, Any] | _Pattern | None = Field(default=None, alias="json")
    regex: _Pattern | None = None
    choice: _Choices | None = None
    grammar: _Pattern | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool | None = None
    structural_tag: dict[str, Any] | _Pattern | None = None
    whitespace_pattern: None = None

    def rule(self, field: str) -> TextRule:
        """Raises InvalidInput unless exactly one way is there."""
        named: list[tuple[str, Kind, Any]] = [
            ("json", "json_schema", self.json_),
            ("regex", "regex", self.regex),
            ("choice", "choice", self.choice),
            ("grammar", "grammar", self.grammar),
            ("json_object", "json_schema", ANY_OBJECT if self.json_object else None),
            ("structural_tag", "structural_tag", self.structural_tag),
        ]
        given = [(name, kind, value) for name, kind, value in named if value is not None]
        if len(given) != 1:
            raise InvalidInput(
                f"The field {field} needs exactly one of json, regex, choice, grammar, json_object and structural_tag.",
                field,
            )
        name, kind, value = given[0]
        if kind == "structural_tag":
            return _tag(_object(value, f"{field}.{name}"), f"{field}.{name}")
        return _rule(kind, value, f"{field}.{name}", bool(self.disable_any_whitespace))


class StructuredFields(ThinkingFields):
    """The fields of every route that say what the answer must match; a request uses one of them."""

    response_format: ResponseFormat | None = Field(
        default=None,
        description='{"type": "text"}, {"type": "json_object"}, '
        '{"type": "json_schema", "json_schema": {"schema": {...}}}, '
        '{"type": "regex", "regex": "..."} or {"type": "grammar", "grammar": "..."}',
    )
    structured_outputs: StructuredOutputs | None = Field(
        default=None,
        description="an object with one of json, regex, choice, grammar, json_object and structural_tag, and perhaps "
        "disable_any_whitespace",
    )

    def answer_rules(self) -> bytes:
        """What the engine is told of an answer without calls, empty where it is free; raises InvalidInput."""
        return packed_rules(self.text_rule(), None, bool(self.thinks()))

    def text_rule(self) -> TextRule | None:
        """What the answer's text must match; raises InvalidInput for two rules, or for one that is too large."""
        rules = [rule for rule in self._text_rules() if rule is not None]
        if len(rules) > 1:
            one, other = (rule.field.split(".")[0] for rule in rules[:2])
            raise InvalidInput(
                f"The fields {one} and {other} both say what the answer must match; send one of them.", other
            )
        return _bounded(rules[0]) if rules else None

    def _text_rules(self) -> list[TextRule | None]:
        return [
            self.response_format.rule("response_format") if self.response_format else None,
            self.structured_outputs.rule("structured_outputs") if self.structured_outputs else None,
        ]


_PLAIN: tuple[tuple[Kind, str], ...] = (
    ("json_schema", "guided_json"),
    ("regex", "guided_regex"),
    ("choice", "guided_choice"),
    ("grammar", "guided_grammar"),
    ("json_schema", "json_schema"),
    ("regex", "regex"),
    ("grammar", "grammar"),
    ("grammar", "ebnf"),
)


class GuidedFields(StructuredFields):
    """The same as clients of vLLM's older versions, of SGLang and of llama.cpp say it."""

    guided_json: dict[str, Any] | _Pattern | None = Field(default=None, description=_SCHEMA)
    guided_regex: _Pattern | None = Field(default=None, description=_REGEX)
    guided_choice: _Choices | None = Field(
        default=None, description=f"a list of 1 to {_MAX_CHOICES} strings that are not empty"
    )
    guided_grammar: _Pattern | None = Field(default=None, description=_GRAMMAR)
    json_schema: dict[str, Any] | _Pattern | None = Field(default=None, description=_SCHEMA)
    regex: _Pattern | None = Field(default=None, description=_REGEX)
    grammar: _Pattern | None = Field(default=None, description=_GRAMMAR)
    ebnf: _Pattern | None = Field(default=None, description=_GRAMMAR)

    def _text_rules(self) -> list[TextRule | None]:
        plain = [(kind, name, getattr(self, name)) for kind, name in _PLAIN]
        rules = [_rule(kind, value, name) for kind, name, value in plain if value is not None]
        return [*super()._text_rules(), *rules]


def packed_rules(text: TextRule | None, calls: CallRule | None, thinks: bool) -> bytes:
    """What the engine is told of an answer, empty where it is free; raises InvalidInput when that is too much."""
    if text is None and calls is None:
        return b""
    packed = AnswerRules(text, calls, thinks).packed()
    if len(packed) > MAX_RULES_BYTES:
        field = "tools" if calls else text.field if text else ""
        raise InvalidInput(f"The schemas in {field} have {len(packed)} bytes; at most {MAX_RULES_BYTES} fit.", field)
    return packed


def _rule(kind: Kind, value: Any, field: str, is_compact: bool = False) -> TextRule:
    return TextRule(kind, _object(value, field) if kind == "json_schema" else value, field, is_compact)


def _tag(document: dict[str, Any], field: str) -> TextRule:
    try:
        return StructuralTag.model_validate(document).rule(field)
    except ValidationError:
        raise InvalidInput(
            f"The structural tag in {field} must have a list of structures with begin, schema and end, and a list of "
            "triggers.",
            field,
        ) from None


def _object(value: dict[str, Any] | str, field: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        schema = parse_json(value)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise InvalidInput(f"The field {field} must be {_SCHEMA}.", field)
    return schema


def _bounded(rule: TextRule) -> TextRule:
    size = len(json.dumps(rule.value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if size > MAX_GRAMMAR_BYTES:
        kind = "schema" if rule.kind == "json_schema" else "rule"
        raise InvalidInput(
            f"The {kind} in {rule.field} has {size} bytes; at most {MAX_GRAMMAR_BYTES} are accepted.", rule.field
        )
    return rule
