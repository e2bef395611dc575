"""Answers drawn at random within a grammar, and the rules that tests make grammars of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glmserve.answer_rules import AnswerRules, CallRule, Kind, OfferedTool, TextRule
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.model.config import Checkpoint
from glmserve.model.output_parser import AnswerReader
from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
TOKENIZER, CHECKPOINT = Tokenizer.read(DEMO), Checkpoint.read(DEMO)
WAIT_S = 10
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


def follows(compiler: GrammarCompiler, rules: AnswerRules, text: str) -> bool:
    """Whether the text is a whole answer under the rules."""
    grammar = compiler.compile(rules.packed())
    mask = grammar.first_mask().result(WAIT_S)
    for token in TOKENIZER.encode(text):
        if not mask[token]:
            return False
        mask = grammar.next_mask(token).result(WAIT_S)
    return bool(set(np.flatnonzero(mask)) & set(CHECKPOINT.eos_token_ids))


def offered(name: str = "weather", parameters: Any = WEATHER, is_strict: bool = False, i: int = 0) -> OfferedTool:
    return OfferedTool(name, parameters, is_strict, f"tools[{i}].function.parameters")


def calls(*tools: OfferedTool, needed: bool = True, most: int = 2) -> AnswerRules:
    return AnswerRules(calls=CallRule(tools, needed, most, "tool_choice"))


def text_rule(kind: Kind, value: Any, thinks: bool = False) -> AnswerRules:
    return AnswerRules(TextRule(kind, value, "response_format"), thinks=thinks)
