"""Reads the tool calls in an answer: a function's name, then pairs of `<arg_key>` and `<arg_value>`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pydantic_core

from glmserve.model.chat_template import ToolCall

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


@dataclass(frozen=True)
class RawCall:
    """A call as the model wrote it: every argument is text."""

    name: str
    arguments: tuple[tuple[str, str], ...]


def read_call(markup: str) -> RawCall:
    """The call between its two marks; a pair that is not whole is left out."""
    name = markup.split("<arg_key>", 1)[0].strip()
    return RawCall(name, tuple((key.strip(), value) for key, value in _PAIR.findall(markup)))


def typed_call(call: RawCall, tools: tuple[dict[str, Any], ...]) -> ToolCall:
    """The call with its arguments as JSON values: text where the tool's schema says string, or where it is no JSON."""
    properties = _properties(call.name, tools)
    return ToolCall(call.name, {key: _value(text, properties.get(key)) for key, text in call.arguments})


def _properties(name: str, tools: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            properties = (function.get("parameters") or {}).get("properties")
            return properties if isinstance(properties, dict) else {}
    return {}


def _value(text: str, schema: Any) -> Any:
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        value = pydantic_core.from_json(text, allow_inf_nan=False)  # unlike json, no lone surrogates and no deep nests
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinity, which no JSON can say
    except ValueError:
        return text
    return value
