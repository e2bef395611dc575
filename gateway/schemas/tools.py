"""The tools that a request offers the model, and which calls of them its answer may make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.schemas.common import Body
from glmserve.answer_rules import CallRule, OfferedTool
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_CALLS
from glmserve.model.tool_parser import FUNCTION_NAME

FunctionName = Annotated[str, StringConstraints(pattern=FUNCTION_NAME)]
CHOICES = (
    '"auto", "none", "required", {"type": "function", "function": {"name": "..."}} or '
    '{"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": [...]}}'
)


class Function(Body):
    """A function that the model may call; `strict` holds a call's arguments to the parameters."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function

    def described(self) -> dict[str, Any]:
        """The tool as the chat template shows it to the model."""
        return self.model_dump(exclude_none=True, exclude={"function": {"strict"}})


class Named(Body):
    """The name of a function."""

    name: FunctionName


class NamedFunction(Body):
    """One of the offered tools, named."""

    type: Literal["function"]
    function: Named


class Allowed(Body):
    """Those of the offered tools that may be called, and whether one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(fail_fast=True)]


class AllowedTools(Body):
    """A choice of some of the offered tools."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowed


Choice = Literal["auto", "none", "required"] | NamedFunction | AllowedTools


@dataclass(frozen=True)
class ToolUse:
    """What a request makes of its tools: those the model is told of, and the calls that the answer may make.

    `rule` is None where nothing holds the model to it. `finish_reason` is OpenAI's word for an answer with calls.
    """

    offered: tuple[dict[str, Any], ...] = ()
    rule: CallRule | None = None
    most_calls: int = MAX_CALLS
    finish_reason: Literal["tool_calls", "stop"] = "tool_calls"


def tool_use(
    tools: list[Tool] | None, choice: Choice | None, one_at_a_time: bool, text_is_ruled: bool = False
) -> ToolUse:
    """Who may be called, and must be; raises InvalidInput for a choice that the tools do not have.

    `text_is_ruled`: the answer's text must match something, so that calls need rules of their own beside it.
    """
    if (choice == "required" and not tools) or (choice not in (None, "none") and tools is None):
        raise InvalidInput("The field tool_choice needs tools to choose from.", "tool_choice")
    if not tools and isinstance(choice, NamedFunction | AllowedTools):
        raise InvalidInput("The field tool_choice names a function that is not among tools.", "tool_choice")
    if not tools or choice == "none":
        return ToolUse()
    names, needed = _chosen(choice, {tool.function.name for tool in tools})
    most = 1 if one_at_a_time or isinstance(choice, NamedFunction) else MAX_CALLS
    rule = CallRule(
        tuple(
            OfferedTool(
                tool.function.name,
                tool.function.parameters or {},
                bool(tool.function.strict),
                f"tools[{i}].function.parameters",
            )
            for i, tool in enumerate(tools)
            if tool.function.name in names
        ),
        needed,
        most,
        "tool_choice" if choice not in (None, "auto") else "tools",
    )
    is_free = not needed and not text_is_ruled and choice in (None, "auto")
    return ToolUse(
        tuple(tool.described() for tool in tools),
        None if is_free and not any(tool.is_strict for tool in rule.tools) else rule,
        most,
        "stop" if isinstance(choice, NamedFunction) else "tool_calls",
    )


def _chosen(choice: Choice | None, offered: set[str]) -> tuple[set[str], bool]:
    """The names of functions that may be called, and whether one must be."""
    if isinstance(choice, NamedFunction):
        names, needed = {choice.function.name}, True
    elif isinstance(choice, AllowedTools):
        names = {tool.function.name for tool in choice.allowed_tools.tools}
        needed = choice.allowed_tools.mode == "required"
    else:
        names, needed = offered, choice == "required"
    if not names or not names <= offered:
        raise InvalidInput("The field tool_choice names a function that is not among tools.", "tool_choice")
    return names, needed
