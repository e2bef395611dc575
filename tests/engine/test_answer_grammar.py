"""Rules of every kind become grammars: an answer drawn at random within them is what they ask for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_answers import CHECKPOINT, DEMO, TOKENIZER, WAIT_S, follows, text_rule

from glmserve.answer_rules import AnswerRules, CallRule, Kind, OfferedTool, TextRule
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_CALLS
from glmserve.model.output_parser import AnswerReader
from glmserve.model.tool_parser import typed_call

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "unit", "place"],
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "on": {"$ref": "#/$defs/flag"}},
            "required": ["x", "on"],
            "additionalProperties": False,
        },
        "flag": {"type": "boolean"},
    },
}
pytestmark = pytest.mark.process  # grammars are tried in a process of their own


def drawn(compiler: GrammarCompiler, rules: AnswerRules, seed: int = 0, most: int = 3000) -> list[int]:
    """Tokens drawn at random; where the end or a control token may come, it comes with a chance of 0.3."""
    grammar, random, tokens = compiler.compile(rules.packed()), np.random.default_rng(seed), list[int]()
    mask = grammar.first_mask().result(WAIT_S)
    while len(tokens) < most:
        allowed = np.flatnonzero(mask)
        if set(allowed) & set(CHECKPOINT.eos_token_ids) and random.random() < 0.3:
            return tokens
        allowed = np.setdiff1d(allowed, CHECKPOINT.eos_token_ids)
        if not len(allowed):
            return tokens
        controls = np.intersect1d(allowed, list(TOKENIZER.control_texts))
        likely = controls if len(controls) and random.random() < 0.3 else allowed
        tokens.append(int(random.choice(likely)))
        mask = grammar.next_mask(tokens[-1]).result(WAIT_S)
    raise AssertionError("no end")


def read(tokens: list[int]) -> AnswerReader:
    reader = AnswerReader(TOKENIZER, reads_calls=True)
    reader.push(tokens)
    reader.finish()
    return reader


def offered(name: str = "weather", parameters: Any = WEATHER, is_strict: bool = False, i: int = 0) -> OfferedTool:
    return OfferedTool(name, parameters, is_strict, f"tools[{i}].function.parameters")


def calls(*tools: OfferedTool, needed: bool = True, most: int = 2) -> AnswerRules:
    return AnswerRules(calls=CallRule(tools, needed, most, "tool_choice"))


@pytest.mark.parametrize("seed", range(8))
def test_calls_drawn_at_random_are_whole_and_match_their_schemas(compiler: GrammarCompiler, seed: int) -> None:
    reader = read(drawn(compiler, calls(offered(), offered("now", {})), seed))
    assert 1 <= len(reader.calls) <= 2 and reader.content == ""
    tools = ({"function": {"name": "weather", "parameters": WEATHER}}, {"function": {"name": "now"}})
    for call in (typed_call(raw, tools) for raw in reader.calls):
        if call.name == "now":
            assert call.arguments == {}
            continue
        assert call.name == "weather" and [*call.arguments] == [n for n in WEATHER["properties"] if n in call.arguments]
        assert isinstance(call.arguments["city"], str) and len(call.arguments["city"]) <= 8
        assert call.arguments["unit"] in ("C", "F", None)
        assert 1 <= call.arguments.get("days", 1) <= 14
        place = call.arguments["place"]
        assert 0 <= place["x"] <= 99 and isinstance(place["on"], bool)


@pytest.mark.parametrize(
    ("schema", "texts", "others"),
    [
        ({"type": "string"}, ["", "1", "a\nb", "</arg_value >"], []),
        ({"type": ["string", "null"]}, ["", "1", "null"], []),
        ({"enum": ["a", "b c", 3]}, ["a", "b c", "3"], ["", "d", '"a"', "c"]),
        ({"const": "x"}, ["x"], ["y", '"x"']),
        ({"type": "string", "pattern": "^a+$"}, ["a", "aa"], ["", "ab", "ba"]),
        ({"type": "string", "pattern": "b/|^c"}, ["ab/a", "cx"], ["", "b", "xc"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["北京", "abc"], ["a", "abcd"]),
        ({"allOf": [{"type": "string"}, {"enum": ["a", 1]}]}, ["a"], ["1", "b"]),
        ({"anyOf": [{"const": "a"}, {"type": "boolean"}]}, ["a", "true"], ["1", "b"]),
        ({"$ref": "#/$defs/n"}, ["1", "-2"], ["a", "1.5", ""]),
        ({"type": "array", "items": {"$ref": "#/$defs/n"}}, ["[]", "[1]", "[1, 2]", "[1,2]"], ["1", "[ 1]", "[1 ]"]),
        ({}, ["anything", "{"], []),
        ({"type": "array", "uniqueItems": True}, ["[1]"], ["1"]),
    ],
)
def test_an_argument_is_what_its_schema_allows(
    compiler: GrammarCompiler, schema: Any, texts: list[str], others: list[str]
) -> None:
    parameters = {"properties": {"x": schema}, "required": ["x"], "$defs": {"n": {"type": "integer"}}}
    rules = calls(offered("f", parameters))

    def call(text: str) -> str:
        return f"<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>"

    assert {text: follows(compiler, rules, call(text)) for text in texts} == dict.fromkeys(texts, True)
    assert {text: follows(compiler, rules, call(text)) for text in others} == dict.fromkeys(others, False)


def _call(name: str, *pairs: tuple[str, str]) -> str:
    written = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in pairs)
    return f"<tool_call>{name}\n{written}</tool_call>"


def test_required_arguments_cannot_be_left_out_nor_others_made_up(compiler: GrammarCompiler) -> None:
    parameters = {"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "c"]}
    rules = calls(offered("f", parameters))
    assert follows(compiler, rules, _call("f", ("a", "1"), ("b", "2"), ("c", "3")))
    assert follows(compiler, rules, _call("f", ("a", "1"), ("c", "3")))
    for pairs in [(("a", "1"),), (("b", "1"), ("c", "1")), (("a", "1"), ("c", "1"), ("d", "1"))]:
        assert not follows(compiler, rules, _call("f", *pairs))


N, M = ("n", "1"), ("m", "2")


@pytest.mark.parametrize(
    ("parameters", "good", "bad"),
    [
        ({"additionalProperties": {"type": "integer"}}, [(), (("n", "1"),), (("n", "1"), ("m", "2"))], [(("n", "x"),)]),
        (
            {"properties": {"a": {}}, "additionalProperties": True},
            [(("a", "1"), ("z", "x"))],
            [(("z", "1"), ("a", "1"))],
        ),
        (
            {"anyOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
            [(("a", "1"),), (("b", "1"),)],
            [(), (("a", "1"), ("b", "1"))],
        ),
        (
            {"$ref": "#/$defs/p", "$defs": {"p": {"properties": {"a": {"type": "null"}}}}},
            [(("a", "null"),)],
            [(("a", "1"),)],
        ),
        ({"allOf": [{"properties": {"a": {}}}, {"required": ["a"]}]}, [(("a", "1"),)], [()]),
        ({}, [()], [(("a", "1"),)]),
    ],
)
def test_parameters_are_understood_however_they_are_put_together(
    compiler: GrammarCompiler, parameters: Any, good: list[Any], bad: list[Any]
) -> None:
    rules = calls(offered("f", parameters))
    assert all(follows(compiler, rules, _call("f", *pairs)) for pairs in good)
    assert not any(follows(compiler, rules, _call("f", *pairs)) for pairs in bad)


def test_of_calls_that_need_not_be_only_strict_ones_are_held_to_their_schema(compiler: GrammarCompiler) -> None:
    number = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    rules = calls(offered("loose", number), offered("strict", number, is_strict=True), needed=False, most=1)
    for text in ("Hello.", "", "<think>hm</think>Look: " + _call("strict", ("n", "1")), _call("loose", ("m", "x"))):
        assert follows(compiler, rules, text), text
    for text in (_call("strict", ("n", "x")), _call("other"), _call("strict", ("n", "1")) * 2):
        assert not follows(compiler, rules, text), text


def test_calls_are_counted(compiler: GrammarCompiler) -> None:
    now, one = offered("now", {}), _call("now")
    assert follows(compiler, calls(now, most=1), one) and not follows(compiler, calls(now, most=1), one * 2)
    assert follows(compiler, calls(now, most=3), f"\n{one}\n{one}{one}".strip())
    assert follows(compiler, calls(now, most=MAX_CALLS), one * MAX_CALLS)


def test_thoughts_may_come_before_what_the_rules_ask_for(compiler: GrammarCompiler) -> None:
    for rules, text in [
        (text_rule("json_schema", {"type": "integer"}, True), "7"),
        (text_rule("choice", ["yes"], True), "yes"),
        (AnswerRules(calls=calls(offered("now", {})).calls, thinks=True), _call("now")),
    ]:
        for thought in ("", "<think></think>", "<think>so\n\nmuch</think>\n", "<think>x</think>\n\n"):
            assert follows(compiler, rules, thought + text), thought
        assert not follows(compiler, rules, f"thought {text}") and not follows(compiler, rules, "<think>x</think>")


def test_an_answer_in_a_given_shape_may_also_be_calls(compiler: GrammarCompiler) -> None:
    rules = AnswerRules(
        TextRule("json_schema", {"type": "integer"}, "f"), calls(offered("now", {}), needed=False).calls
    )
    assert follows(compiler, rules, "7") and follows(compiler, rules, _call("now"))
    assert not follows(compiler, rules, "seven")


@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("regex", r"\d{3}-[a-c]+", r"\d{3}-[a-c]+"),
        ("regex", r"^(a/b|c)\/$", r"(a/b|c)/"),
        ("choice", ["red", 'gr"een', "bl\\ue", "白"], r'red|gr"een|bl\\ue|白'),
        ("grammar", 'start: "x" N+\nN: /[0-9]/', r"x\d+"),
        ("grammar", '?start: item\nitem: "x" | "y"', r"[xy]"),
        ("grammar", 'root ::= "x" digit+\ndigit ::= [0-9]\n', r"x\d+"),
        ("json_schema", {"type": "array", "items": {"enum": [1, 2]}}, r"\[((1|2)(, ?(1|2))*)?\]"),
    ],
)
@pytest.mark.parametrize("thinks", [False, True])
def test_text_drawn_at_random_is_what_its_rule_asks_for(
    compiler: GrammarCompiler, kind: Kind, value: Any, pattern: str, thinks: bool
) -> None:
    for seed in range(4):
        answer = read(drawn(compiler, text_rule(kind, value, thinks), seed))
        assert re.fullmatch(pattern, answer.content), answer.content


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_compact", [False, True])
def test_json_holds_no_blanks_but_one_after_a_comma_or_colon(
    compiler: GrammarCompiler, seed: int, is_compact: bool
) -> None:
    """Some models write nothing but blanks where they may."""
    small = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}
    schema = {
        "type": "object",
        "properties": {"a": small, "b": small},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    rules = AnswerRules(TextRule("json_schema", schema, "response_format", is_compact))
    text = TOKENIZER.decode(drawn(compiler, rules, seed, most=60))
    assert json.loads(text).keys() == {"a", "b"}
    assert not re.search(r"\s" if is_compact else r"(?<![,:])\s|\s\s", text)


def test_structures_stand_in_free_text_where_their_trigger_was_written(compiler: GrammarCompiler) -> None:
    schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    structures = [{"begin": f"<f={name}/>", "schema": schema, "end": "</f>"} for name in ("x", "y")]
    rules = text_rule("structural_tag", {"structures": structures, "triggers": ["<f="]})
    for text in ("", "plain <f text", 'so <f=x/>{"a": 1}</f> and <f=y/>{"a":2}</f>.', '<f=x/>{"a": 1}</f>'):
        assert follows(compiler, rules, text), text
    for text in ("<f=z", "<f=x/>1", '<f=x/>{"a": 1}', "so <f=", '<f=x/>{"a": "b"}</f>'):
        assert not follows(compiler, rules, text), text


ONE = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "is_open"),
    [
        (ONE, False),
        ({"items": ONE, "type": "array", "minItems": 1}, False),
        ({"$ref": "#/$defs/one", "$defs": {"one": ONE}}, False),
        ({**ONE, "additionalProperties": True}, True),
        ({**ONE, "additionalProperties": {"type": "integer"}}, True),
        ({"properties": {"a": {}}, "required": ["a", "z"]}, True),
        ({"allOf": [ONE, {"properties": {"z": {"type": "integer"}}, "required": ["z"]}]}, True),
        ({"type": "object", "const": {"a": 1, "z": 2}, "default": ONE}, True),
        ({"properties": {"properties": {"type": "integer"}, "a": {}}, "required": ["a"]}, False),
    ],
)
def test_objects_have_the_declared_properties_only_unless_more_are_asked_for(
    compiler: GrammarCompiler, schema: Any, is_open: bool
) -> None:
    """A model left free would invent some and never end."""
    one, more = '{"a": 1}', '{"a": 1, "z": 2}'
    if schema.get("type") == "array":
        one, more = f"[{one}]", f"[{more}]"
    rules = text_rule("json_schema", schema)
    assert follows(compiler, rules, more) == is_open
    assert is_open or follows(compiler, rules, one)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        (text_rule("regex", "(?=a)b"), "response_format"),
        (text_rule("regex", "("), "response_format"),
        (text_rule("regex", 7), "response_format"),
        (text_rule("choice", []), "response_format"),
        (text_rule("choice", [""]), "response_format"),
        (text_rule("choice", ["a", 1]), "response_format"),
        (text_rule("grammar", "start: nowhere"), "response_format"),
        (text_rule("grammar", "root ::= ("), "response_format"),
        (text_rule("grammar", 'top ::= "a"'), "response_format"),
        (text_rule("grammar", "hello"), "response_format"),
        (text_rule("grammar", "root ::= " + "(" * 9000), "response_format"),
        (calls(offered("f"), offered("g", {"properties": {"x": {"type": 7}}}, i=1)), "tools[1].function.parameters"),
        (calls(offered("g", {"properties": {"x": False}, "required": ["x"]})), "tools[0].function.parameters"),
        (calls(offered("g", {"$ref": "#"})), "tools[0].function.parameters"),
        (calls(offered(), offered("g", {"anyOf": [{"$ref": "#"}]}, i=1)), "tools[1].function.parameters"),
        (calls(offered("g", {"properties": {"x": {"$ref": "http://a/b"}}})), "tools[0].function.parameters"),
        (calls(offered("g", {"properties": {"x": {"$ref": "#/$defs/gone"}}})), "tools[0].function.parameters"),
        (
            calls(offered("g", {"properties": {"x": {"multipleOf": 999_983, "type": "integer"}}})),
            "tools[0].function.parameters",
        ),
        (
            calls(offered("g", {"properties": {"x": {"type": "array", "uniqueItems": True}}}, is_strict=True)),
            "tools[0].function.parameters",
        ),
        (
            AnswerRules(TextRule("regex", "(", "structured_outputs"), calls(offered(), needed=False).calls),
            "structured_outputs",
        ),
    ],
)
def test_what_cannot_be_a_grammar_is_the_users_mistake_and_named(
    compiler: GrammarCompiler, rules: AnswerRules, field: str
) -> None:
    began_s = time.process_time()
    with pytest.raises(InvalidInput) as caught:
        compiler.compile(rules.packed())
    assert caught.value.field == field and caught.value.message
    assert time.process_time() - began_s < 0.5, "this process did the work"


def test_a_model_without_marks_for_calls_is_said_to_have_none(tmp_path: Path) -> None:
    document = json.loads((DEMO / "tokenizer.json").read_text("utf-8"))
    kept = [token for token in document["added_tokens"] if "arg_" not in token["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"added_tokens": kept}))
    made = GrammarCompiler(tmp_path / "tokenizer.json", CHECKPOINT.text.vocabulary, CHECKPOINT.eos_token_ids)
    try:
        with pytest.raises(InvalidInput, match="has no token <arg_key>") as caught:
            made.compile(calls(offered()).packed())
        assert caught.value.field == "tool_choice"
    finally:
        made.close()
