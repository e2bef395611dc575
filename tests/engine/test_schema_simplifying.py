"""A schema that says more than a grammar can hold an answer to is read as far as it means the same."""

from __future__ import annotations

from typing import Any

import pytest
from whole_answers import follows, text_rule

from glmserve.answer_rules import AnswerRules, CallRule, OfferedTool
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.errors import InvalidInput

pytestmark = pytest.mark.process  # grammars are tried in a process of their own


@pytest.mark.parametrize("name", ["password", "byte", "uri-reference", "path", "whatever"])
@pytest.mark.parametrize("in_call", [False, True])
def test_a_format_that_no_grammar_knows_is_a_note(compiler: GrammarCompiler, name: str, in_call: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": name}}, "required": ["a"]}
    if in_call:
        tool = OfferedTool("f", schema, True, "tools[0].function.parameters")
        compiler.compile(AnswerRules(calls=CallRule((tool,), True, 1, "tool_choice")).packed())
    else:
        assert follows(compiler, text_rule("json_schema", schema), '{"a":"x"}')
    held = text_rule("json_schema", {"type": "string", "format": "date"})
    assert follows(compiler, held, '"2026-01-31"') and not follows(compiler, held, '"x"')


def kind(name: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"const": name}, **more}, "required": ["kind", *more]}


KINDS = {"a": kind("a", x={"const": 1}), "b": kind("b", x={"const": 2})}
REFERRED = [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        ([{"const": 1}, {"const": 2}], "1"),
        ([{"enum": [1, 2], "title": "small"}, {"enum": [3]}], "3"),
        ([{"const": 1}, {"type": "string"}], "1"),
        ([{"type": "integer", "minimum": 5}, {"const": 1}], "1"),
        (REFERRED, '{"kind":"b","x":2}'),
        ([*REFERRED, {"type": "null"}], "null"),
        ([KINDS["a"], KINDS["b"]], '{"kind":"a","x":1}'),
        ([kind(1), kind(2)], '{"kind":2}'),
    ],
)
@pytest.mark.parametrize("is_within", [False, True])
def test_of_kinds_that_exclude_one_another_one_is_chosen(
    compiler: GrammarCompiler, choices: list[Any], answer: str, is_within: bool
) -> None:
    schema: dict[str, Any] = {"oneOf": choices}
    if is_within:
        schema = {"type": "object", "properties": {"item": schema}, "required": ["item"]}
        answer = f'{{"item":{answer}}}'
    assert follows(compiler, text_rule("json_schema", {**schema, "$defs": KINDS}), answer)


@pytest.mark.parametrize(
    "choices",
    [
        [{"const": 1}, {"type": "integer"}],
        [{"enum": [1, 2]}, {"enum": [2, 3]}],
        [{"type": "number"}, {"type": "integer"}],
        [{"properties": {"kind": {"const": 1}}}, {"properties": {"kind": {"const": 2}}}],
        [{"$ref": "#"}, {"const": 1}],
    ],
)
def test_kinds_that_may_both_match_are_refused(compiler: GrammarCompiler, choices: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        compiler.compile(text_rule("json_schema", {"oneOf": choices}).packed())
