"""The messages of a chat as OpenAI's clients send them, read into turns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.schemas.common import Body, Text, ThinkingFields
from gateway.schemas.conversation import SentImage, Turn
from gateway.schemas.json_reader import parse_json
from gateway.schemas.tools import FunctionName, Tool
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_CALLS, MAX_PARTS
from glmserve.model.chat_template import Role, ToolCall

_MAX_MESSAGES = 512
_MAX_TOOLS = 128


class ImageUrl(Body):
    """A picture as OpenAI's object names it."""

    url: Text


class Part(Body):
    """A part of a message: text, or a picture as an object or a plain string."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Text | ImageUrl | None = None


class CalledFunction(Body):
    """A function that an assistant called, its arguments as JSON text."""

    name: FunctionName
    arguments: str


class Call(Body):
    """One tool call of an assistant's message."""

    function: CalledFunction


class ChatMessage(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = Field(default=None, max_length=MAX_CALLS, fail_fast=True)


class TemplateSwitches(Body):
    """What vLLM's clients tell the chat template."""

    enable_thinking: bool | None = None


_MESSAGES = (
    f"a list of 1 to {_MAX_MESSAGES} messages with role and content, which has at most {MAX_PARTS} parts; "
    "text parts need text, image_url parts a picture"
)


class MessagesBody(ThinkingFields):
    """Messages, the tools they may speak of, and whether they are to be thought about."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    messages: list[ChatMessage] = Field(
        min_length=1, max_length=_MAX_MESSAGES, fail_fast=True, description=_MESSAGES
    )  # every error weighs a kilobyte, and only the first is told
    tools: list[Tool] | None = Field(
        default=None,
        max_length=_MAX_TOOLS,
        description=f"a list of at most {_MAX_TOOLS} functions with name and parameters",
    )
    chat_template_kwargs: TemplateSwitches | None = Field(default=None, description='{"enable_thinking": true}')

    def thinks(self) -> bool | None:
        said = super().thinks()
        if said is None and self.chat_template_kwargs is not None:
            return self.chat_template_kwargs.enable_thinking
        return said

    def turns(self) -> tuple[Turn, ...]:
        """The messages; raises InvalidInput when nobody asks anything."""
        turns = tuple(_turn(message, f"messages[{i}]") for i, message in enumerate(self.messages))
        spoken = [turn.role for turn in turns if turn.role != "system"]
        if not spoken or spoken[0] != "user" or spoken[-1] not in ("user", "tool"):
            raise InvalidInput(
                "After any system message, messages must begin with one of role user and end with one of user or tool.",
                "messages",
            )
        return turns


def _turn(message: ChatMessage, field: str) -> Turn:
    role: Role = "system" if message.role == "developer" else message.role
    content = message.content
    parts = (
        (content,)
        if isinstance(content, str)
        else tuple(_part(part, f"{field}.content[{i}]") for i, part in enumerate(content or ()))
    )
    calls = tuple(_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ()))
    if role == "assistant":
        return Turn(role, parts, message.reasoning_content, calls)
    is_result = role == "tool" and content is not None  # a tool may find nothing, and says so
    if not is_result and not any(isinstance(part, SentImage) or part.strip() for part in parts):
        raise InvalidInput(f"The field {field}.content must hold text or a picture.", f"{field}.content")
    return Turn(role, parts, is_list=isinstance(content, list))


def _part(part: Part, field: str) -> str | SentImage:
    if part.type == "text" and part.text is not None:
        return part.text
    if part.type == "image_url" and part.image_url is not None:
        url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return SentImage(url, f"{field}.image_url")
    raise InvalidInput(f"The field {field} is of type {part.type} but has no {part.type}.", f"{field}.{part.type}")


def _call(call: Call, field: str) -> ToolCall:
    try:
        arguments = parse_json(call.function.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"The arguments in {field} must be a JSON object as text.", field)
    return ToolCall(call.function.name, arguments)
