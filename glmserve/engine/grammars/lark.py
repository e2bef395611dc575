"""Pieces of grammars in llguidance's Lark: texts, regular expressions and JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from glmserve.engine.grammars.schema_rewriting import closed
from glmserve.engine.grammars.schema_simplifying import simplified

ANYTHING = "ANYTHING"
"""The terminal that stands for any text, control tokens aside."""


def literal(text: str) -> str:
    """Exactly this text."""
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """A whole match of a regular expression."""
    closed = re.sub(r"\\.|/", lambda found: r"\/" if found.group() == "/" else found.group(), pattern, flags=re.DOTALL)
    return "/" + closed.replace("\n", r"\n") + "/"


def holding(pattern: str) -> str:
    """A text with a match of a regular expression in it, as JSON Schema means `pattern`."""
    return regex("|".join(_spread(branch) for branch in _branches(pattern)))


def json_value(schema: Any, is_lenient: bool) -> str:
    """A JSON value that matches a schema; `is_lenient` passes over what llguidance cannot hold an answer to."""
    document = closed(simplified(schema)) if isinstance(schema, dict) else {} if schema is True else {"not": {}}
    return "%json " + json.dumps({**document, "x-guidance": json_options(is_lenient=is_lenient)}, ensure_ascii=False)


def json_options(is_compact: bool = False, is_lenient: bool = False) -> dict[str, Any]:
    """How JSON is written: without blanks, or with one at most after each comma and colon."""
    blank = "" if is_compact else " ?"
    return {
        "whitespace_flexible": False,
        "item_separator": f",{blank}",
        "key_separator": f":{blank}",
        "lenient": is_lenient,
    }


def _spread(branch: str) -> str:
    begin = "" if branch.startswith("^") else "(?s:.*)"
    is_closed = branch.endswith("$") and not re.search(r"(?<!\\)(\\\\)*\\\$$", branch)
    middle = branch.removeprefix("^")
    return f"{begin}(?:{middle[:-1] if is_closed else middle}){'' if is_closed else '(?s:.*)'}"


def _branches(pattern: str) -> list[str]:
    """The alternatives of a regular expression, split where no parenthesis or class is open."""
    branches, depth, in_class = [""], 0, False
    for piece in re.findall(r"\\.|.", pattern, re.DOTALL):
        if in_class:
            in_class = piece != "]"
        elif piece == "[":
            in_class = True
        elif piece in "()":
            depth += 1 if piece == "(" else -1
        elif piece == "|" and depth == 0:
            branches.append("")
            continue
        branches[-1] += piece
    return branches
