"""Which calls an answer may make is asked of the engine, and said in the answer, as OpenAI's clients know it."""

from __future__ import annotations

from typing import Any

from glmserve.answer_rules import OfferedTool

URL = "/v1/chat/completions"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def strict(tool: dict[str, Any]) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "strict": True}}


def offered(i: int, tool: dict[str, Any]) -> OfferedTool:
    function = tool["function"]
    field = f"tools[{i}].function.parameters"
    return OfferedTool(function["name"], function.get("parameters", {}), function.get("strict", False), field)


BOTH = (offered(0, WEATHER), offered(1, NOW))


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
