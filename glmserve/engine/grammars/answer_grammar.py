"""Turns the rules of an answer into a grammar as llguidance reads it."""

from __future__ import annotations

import json
import re
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.engine.grammars.call_grammar import CallGrammar
from glmserve.engine.grammars.lark import json_options, json_value, literal, regex
from glmserve.engine.grammars.schema_rewriting import closed
from glmserve.engine.grammars.schema_simplifying import simplified
from glmserve.errors import InvalidInput
from glmserve.model.chat_template import THINK_CLOSE, THINK_OPEN
from glmserve.model.tool_parser import CALL_CLOSE, CALL_OPEN, KEY_CLOSE, KEY_OPEN, VALUE_CLOSE, VALUE_OPEN

_THOUGHT = rf"({THINK_OPEN} ANYTHING {THINK_CLOSE} /\n{{0,2}}/)?"
_IN_CALLS = (CALL_OPEN, CALL_CLOSE, KEY_OPEN, KEY_CLOSE, VALUE_OPEN, VALUE_CLOSE)
_IN_TEXT = (THINK_OPEN, THINK_CLOSE, "<|begin_of_box|>", "<|end_of_box|>")
_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
_GUIDANCE = "x-guidance"


def control_tokens(tokenizer: LLTokenizer) -> frozenset[str]:
    """Which of the tokens that grammars speak of this tokenizer has."""
    return frozenset(
        name for name in (*_IN_CALLS, *_IN_TEXT) if len(tokenizer.tokenize_str(name, parse_special=True)) == 1
    )


def grammar_of(rules: AnswerRules, tokens: frozenset[str]) -> str:
    """The grammar of an answer, for a tokenizer with these control tokens.

    Raises InvalidInput, which names the field at fault, where no grammar can say this. May take long for a hostile
    rule: first run it where it can be ended.
    """
    answer = _answer(rules.text) if rules.text else None
    if answer and not rules.calls and not rules.thinks:
        return json.dumps({"grammars": [answer]})
    main = _main(rules, tokens)
    return json.dumps({"grammars": [{"lark_grammar": main}, *([{"name": "answer", **answer}] if answer else [])]})


def _main(rules: AnswerRules, tokens: frozenset[str]) -> str:
    thought = ""
    if rules.thinks:
        _need(tokens, (THINK_OPEN, THINK_CLOSE), "thinking")
        thought = _THOUGHT
    if rules.calls is None:
        return f"start: {thought} @answer\nANYTHING: /(?s:.*)/\n"
    calls = rules.calls
    _need(tokens, _IN_CALLS, calls.field)
    written = CallGrammar(calls.needed)
    for tool in calls.tools:
        written.add(tool)
    several = "called" if calls.most == 1 else rf"called (/\n?/ called){{0,{calls.most - 1}}}"
    if calls.needed:
        start = f"{thought} {several}"
    elif rules.text:
        start = f"{thought} (@answer | {several})"
    else:
        start = f"said (called said){{0,{calls.most}}}"
    said = " | ".join(["SAID", *(name for name in _IN_TEXT if name in tokens)])
    return f"start: {start}\n{written.text()}said: ({said})*\nSAID: /(?s:.+)/\n"


def _need(tokens: frozenset[str], names: tuple[str, ...], field: str) -> None:
    for name in names:
        if name not in tokens:
            raise InvalidInput(
                f"The field {field} asks for what this model cannot write: it has no token {name}.", field
            )


def _answer(rule: TextRule) -> dict[str, Any]:
    """One of llguidance's own grammars."""
    if rule.kind == "json_schema":
        return {"json_schema": _schema(rule)}
    return {"lark_grammar": _lark(rule)}


def _schema(rule: TextRule) -> dict[str, Any]:
    if not isinstance(rule.value, dict):
        raise InvalidInput(f"The JSON Schema in {rule.field} must be a JSON object.", rule.field)
    schema = {
        **closed(simplified(rule.value)),
        _GUIDANCE: json_options(rule.is_compact),
    }  # the library's own switches are not for users
    try:
        LLMatcher.grammar_from_json_schema(schema)
    except (ValueError, RecursionError):  # a lone surrogate, or a number of hundreds of digits
        raise InvalidInput(
            f"The JSON Schema in {rule.field} holds a text or a number that a grammar cannot hold.", rule.field
        ) from None
    return schema


def _lark(rule: TextRule) -> str:
    if rule.kind == "choice":
        choices = rule.value if isinstance(rule.value, list) else []
        if not choices or not all(isinstance(choice, str) and choice for choice in choices):
            raise InvalidInput(f"The choices in {rule.field} must be strings that are not empty.", rule.field)
        return "start: " + " | ".join(map(literal, choices))
    if rule.kind == "structural_tag":
        return _tagged(rule.value["structures"], rule.value["triggers"])
    if not isinstance(rule.value, str):
        raise InvalidInput(f"The rule in {rule.field} must be a string.", rule.field)
    if rule.kind == "regex":
        return f"start: {regex(rule.value)}"
    if not _GBNF_RULE.search(rule.value):
        return rule.value
    try:
        return str(gbnf_to_lark(rule.value))
    except Exception as error:  # a foreign parser, run on what the caller sent
        raise InvalidInput(f"The grammar in {rule.field} is not GBNF with a rule named root.", rule.field) from error


def _tagged(structures: list[dict[str, Any]], triggers: list[str]) -> str:
    """Free text, in which a structure must stand wherever one of the triggers was written."""
    rules = []
    for i, structure in enumerate(structures):
        end = literal(structure["end"]) if structure["end"] else ""
        rules.append(f"tag_{i}: begin_{i} {json_value(structure['schema'], is_lenient=False)} {end}")
        rules.append(f"begin_{i}[lazy]: {regex('(?s:.*)' + re.escape(structure['begin']))}")
    tags = " | ".join(f"tag_{i}" for i in range(len(structures)))
    begun = regex(f"(?s:.*)({'|'.join(map(re.escape, triggers))})(?s:.*)")
    return "\n".join([f"start: ({tags})* REST", *rules, f"REST: /(?s:.*)/ & ~{begun}", ""])
