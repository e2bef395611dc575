"""Which texts are whole answers under a rule, by the demo's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glmserve.answer_rules import AnswerRules, Kind, TextRule
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
TOKENIZER, CHECKPOINT = Tokenizer.read(DEMO), Checkpoint.read(DEMO)
WAIT_S = 10


def follows(compiler: GrammarCompiler, rules: AnswerRules, text: str) -> bool:
    """Whether the text is a whole answer under the rules."""
    grammar = compiler.compile(rules.packed())
    mask = grammar.first_mask().result(WAIT_S)
    for token in TOKENIZER.encode(text):
        if not mask[token]:
            return False
        mask = grammar.next_mask(token).result(WAIT_S)
    return bool(set(np.flatnonzero(mask)) & set(CHECKPOINT.eos_token_ids))


def text_rule(kind: Kind, value: Any, thinks: bool = False) -> AnswerRules:
    return AnswerRules(TextRule(kind, value, "response_format"), thinks=thinks)
