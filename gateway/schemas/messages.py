"""The messages of a chat as OpenAI's clients send them, read into turns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.schemas.common import Body, Text, ThinkingFields, is_blank
from gateway.schemas.conversation import Turn
from gateway.schemas.json_reader import parse_json
from gateway.schemas.mistakes import said, shown
from gateway.schemas.parts import Part
from gateway.schemas.tools import FunctionName, Tool
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_CALLS, MAX_PARTS, MAX_TOOLS
from glmserve.model.chat_template import Role, ToolCall

MAX_MESSAGES = 512


class CalledFunction(Body):
    """A function that an assistant called, its arguments as JSON text or as an object."""

    name: FunctionName
    arguments: str | dict[str, Any] | None = None


class Call(Body):
    """One tool call of an assistant's message."""

    function: CalledFunction


class ChatMessage(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = Field(default=None, max_length=MAX_CALLS, fail_fast=True)

    @model_validator(mode="before")
    @classmethod
    def _without_a_call_of_old(cls, sent: Any) -> Any:
        if isinstance(sent, dict) and sent.get("function_call") is not None:
            raise said("holds a function_call, which is not read: send it as one of tool_calls")
        return sent


class TemplateSwitches(Body):
    """What vLLM's clients tell the chat template."""

    enable_thinking: bool | None = None


_MESSAGES = (
    f"a list of 1 to {MAX_MESSAGES} messages with role and content, which is text or at most {MAX_PARTS} parts; "
    "text parts need text, image_url parts an image"
)


class MessagesBody(ThinkingFields):
    """Messages, the tools they may speak of, and whether they are to be thought about."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    messages: list[ChatMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, fail_fast=True, description=_MESSAGES
    )  # every error weighs a kilobyte, and only the first is told
    tools: list[Tool] | None = Field(
        default=None,
        max_length=MAX_TOOLS,
        fail_fast=True,
        description=f"a list of at most {MAX_TOOLS} functions with name and parameters",
    )
    chat_template_kwargs: TemplateSwitches | None = Field(default=None, description='{"enable_thinking": true}')

    def thinks(self) -> bool | None:
        told = self.chat_template_kwargs.enable_thinking if self.chat_template_kwargs else None
        is_plain = self.thinking is None and self.enable_thinking is None
        return told if is_plain and told is not None else super().thinks()

    def turns(self) -> tuple[Turn, ...]:
        """The messages without those that say nothing; raises InvalidInput when nobody asks anything."""
        read = [_turn(message, f"messages[{i}]") for i, message in enumerate(self.messages)]
        turns = tuple(turn for turn in read if turn is not None)
        spoken = [turn.role for turn in turns if turn.role != "system"]
        if spoken and spoken[-1] in ("user", "tool"):
            return turns
        blank = [i for i, turn in enumerate(read) if turn is None and self.messages[i].role == "user"]
        if blank and all(turn is None or turn.role == "system" for turn in read[blank[-1] :]):
            raise _blank(f"messages[{blank[-1]}].content")
        if spoken:  # an assistant speaks again, as the template lets it, or goes on
            return turns
        raise InvalidInput("The field messages must hold a message that is not of role system.", "messages")


def _turn(message: ChatMessage, field: str) -> Turn | None:
    """What a message says; None for one of a user or the system that says nothing."""
    role: Role = "system" if message.role == "developer" else message.role
    content = message.content
    parts = (
        (content,)
        if isinstance(content, str)
        else tuple(part.read(f"{field}.content[{i}]") for i, part in enumerate(content or ()))
    )
    calls = tuple(_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ()))
    if role == "assistant":
        thoughts = message.reasoning if message.reasoning_content is None else message.reasoning_content
        return Turn(role, parts, thoughts, calls)
    if role == "tool" and content is None:  # it may find nothing, and says so
        raise _blank(f"{field}.content")
    is_blank = not any(not isinstance(part, str) or part.strip() for part in parts)
    return None if is_blank and role != "tool" else Turn(role, parts, is_list=isinstance(content, list))


def check_continued(last: Turn, begins_another: bool) -> None:
    """Raises InvalidInput where an answer cannot go on with the last message."""
    if begins_another:
        raise InvalidInput(
            "The fields continue_final_message and add_generation_prompt cannot both be true: a prompt that goes "
            "on with a message does not begin another one.",
            "continue_final_message",
        )
    if last.role != "assistant" or last.tool_calls:
        raise InvalidInput(
            "The field continue_final_message needs a last message of role assistant without tool calls; it is of "
            f"role {last.role}.",
            "continue_final_message",
        )


def _blank(field: str) -> InvalidInput:
    return InvalidInput(f"The field {field} must hold text or an image.", field)


def _call(call: Call, field: str) -> ToolCall:
    sent = call.function.arguments
    if isinstance(sent, dict):
        return ToolCall(call.function.name, sent)
    place = f"{field}.function.arguments"
    try:
        arguments = parse_json("{}" if sent is None or is_blank(sent) else sent)
    except ValueError:
        raise InvalidInput(f"The field {place} must be a JSON object as text and is no JSON.", place) from None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"The field {place} must be a JSON object as text and is {shown(arguments)}.", place)
    return ToolCall(call.function.name, arguments)
