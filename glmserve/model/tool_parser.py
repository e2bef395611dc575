"""Reads the tool calls in an answer: a function's name, then pairs of `<arg_key>` and `<arg_value>`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pydantic_core

from glmserve.model.chat_template import ToolCall
from glmserve.model.schema_check import admits
from glmserve.model.schema_types import Steps, TooMuchSchema, type_of, types_of
from glmserve.model.tool_schema import argument_schema

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
KEY_OPEN, KEY_CLOSE, VALUE_OPEN, VALUE_CLOSE = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
FUNCTION_NAME = r"^[A-Za-z0-9_.-]{1,64}$"
"""The names that functions may have, in a request and in a call."""

_MARKS = {KEY_OPEN: "\ud800", KEY_CLOSE: "\ud801", VALUE_OPEN: "\ud802", VALUE_CLOSE: "\ud803"}
_PAIR = re.compile("\ud800([^\ud800-\ud803]*)\ud801\\s*\ud802([^\ud800-\ud803]*)\ud803")
_MOST_JSON_VALUES = 100_000


@dataclass(frozen=True)
class RawCall:
    """A call as the model wrote it: every argument is text."""

    name: str
    arguments: tuple[tuple[str, str], ...]


class CallMarkup:
    """What stands between the two marks of a call: text, and the marks of keys and values.

    A mark is a token. The same letters as ordinary text are part of an argument; lone surrogates, which no decoded text
    holds, keep the two apart.
    """

    def __init__(self) -> None:
        self._written = ""

    def add_text(self, text: str) -> None:
        self._written += text

    def add_control(self, control: str) -> None:
        self._written += _MARKS.get(control, control)

    def call(self) -> RawCall | None:
        """The call, without pairs that are not whole; None where what should be a function's name cannot be one."""
        name = self._written.split(_MARKS[KEY_OPEN], 1)[0].strip()
        if not re.fullmatch(FUNCTION_NAME, name):
            return None
        return RawCall(name, tuple((key.strip(), value) for key, value in _PAIR.findall(self._written)))

    def as_text(self) -> str:
        """The whole call as the model wrote it."""
        written = self._written
        for control, mark in _MARKS.items():
            written = written.replace(mark, control)
        return CALL_OPEN + written + CALL_CLOSE


def typed_call(call: RawCall, tools: tuple[dict[str, Any], ...]) -> ToolCall:
    """The call with its arguments as JSON values: text where the tool's schema says so, or where it is no JSON."""
    parameters = _parameters(call.name, tools)
    values = sum(text.count(mark) for _, text in call.arguments for mark in ",[{")
    if values > _MOST_JSON_VALUES:  # more than a request may send back
        return ToolCall(call.name, dict(call.arguments))
    return ToolCall(call.name, {key: _value(text, key, parameters) for key, text in call.arguments})


def _parameters(name: str, tools: tuple[dict[str, Any], ...]) -> Any:
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            return function.get("parameters") or {}
    return {}


def _value(text: str, name: str, parameters: Any) -> Any:
    """The value that an argument's text stands for: what the schema allows, and of two such values the one that is not
    text; of none, the one whose type it allows."""
    try:
        value = _json(text)
    except ValueError:
        return text
    try:
        steps = Steps()
        schema = argument_schema(parameters, name, steps)
        is_text, is_value = (admits(schema, each, parameters, steps) for each in (text, value))
        if is_text != is_value:
            return text if is_text else value
        if isinstance(value, str):  # the model writes texts without quotes
            return text
        types = types_of(schema, parameters, steps)
        return text if not is_value and "string" in types and type_of(value) not in types else value
    except TooMuchSchema:
        return text


def _json(text: str) -> Any:
    """The value in a text; raises ValueError where it is no JSON that every client can read, and send back."""
    values = pydantic_core.from_json(f"[{text}]", allow_inf_nan=False)  # no lone surrogates and no deep nests
    if len(values) != 1:
        raise ValueError
    json.dumps(values, allow_nan=False)  # 1e999 is read as infinity, which no JSON can say
    return values[0]
