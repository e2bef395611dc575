"""Finds every number of seconds that stands in the source: constants by their names, and literals given to waits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("gateway", "glmserve", "launcher", "model_repository", "export")
_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*(_S|_NS|_MS|TIMEOUT)")
_WAITS = {"wait", "wait_for", "sleep", "join", "result", "acquire", "communicate"}
_KEYWORDS = re.compile(r"(\w+_)?(timeout|timeout_s|wait_s|patience_s)")


def constants() -> dict[str, str]:
    """`module.NAME` or `module: call` -> the number as it is written."""
    found: dict[str, str] = {}
    for program in PROGRAMS:
        for path in sorted((ROOT / program).rglob("*.py")):
            module = str(path.relative_to(ROOT))
            found |= {f"{module}:{name}": number for name, number in _in(ast.parse(path.read_text("utf-8")))}
    return found


def _in(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from _assigned(targets[0], node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _waited(node)
        elif isinstance(node, ast.FunctionDef):
            yield from _defaulted(node)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, str]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=True):
            yield from _assigned(one, other)
    elif isinstance(target, ast.Name) and (_NAME.fullmatch(target.id) or target.id == "timeout"):
        number = _number(value)
        if number is not None:
            yield target.id, number


def _waited(call: ast.Call) -> Iterator[tuple[str, str]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [argument.value for argument in call.keywords if argument.arg and _KEYWORDS.fullmatch(argument.arg)]
    if name in _WAITS:
        given += call.args
    for value in given:
        number = _number(value)
        if number not in (None, "0", "0.0"):
            yield f"{name}({number})", str(number)


def _defaulted(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    arguments, defaults = function.args.args, function.args.defaults
    for argument, default in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True):
        number = _number(default)
        if _KEYWORDS.fullmatch(argument.arg) and number not in (None, "0", "0.0"):
            yield f"{function.name}({argument.arg}=)", str(number)


def _number(value: ast.expr) -> str | None:
    """A number as it is written; None for anything else, also for a text, a flag and nothing."""
    if isinstance(value, ast.Constant):
        written = str(value.value)
        return written if re.fullmatch(r"[\d.]+", written) else None
    return None


if __name__ == "__main__":
    for name, number in constants().items():
        print(name, number)
