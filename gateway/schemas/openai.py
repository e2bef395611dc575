"""What a client may send to /v1/chat/completions, read into the same conversation as every other request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from gateway.schemas.common import (
    FLAG,
    AnswerFields,
    Body,
    Text,
    ThinkingFields,
    read_json,
    refusal,
    with_parameters,
)
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.schemas.json_reader import parse_json
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_CALLS, MAX_PARTS
from glmserve.model.chat_template import Role, ToolCall
from glmserve.sampling_parameters import PARAMETERS

_MAX_MESSAGES = 512
_MAX_TOOLS = 128
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


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

    name: _Name
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


class Function(Body):
    """A function that the model may call."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


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


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.openai_aliases})
class CompletionBody(AnswerFields, MessagesBody):
    """The JSON body of a request to /v1/chat/completions."""

    n: Literal[1] | None = Field(default=None, description="1: one answer a request")
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(default=None, description='{"include_usage": true}')
    tool_choice: Literal["auto", "none"] | None = Field(default=None, description='"auto" or "none"')
    frequency_penalty: float | None = Field(default=None, ge=0, le=0, description="0; use repetition_penalty instead")
    presence_penalty: float | None = Field(default=None, ge=0, le=0, description="0; use repetition_penalty instead")

    def conversation(self, thinks_by_default: bool) -> Conversation:
        grammar, asked = self.grammar(), self.thinks()
        tools = () if self.tool_choice == "none" else tuple(self.tools or ())
        return Conversation(
            turns=self.turns(),
            sampling=self.sampling(),
            stop=self.stops(),
            thinking=(thinks_by_default and not grammar) if asked is None else asked,
            grammar=grammar,
            tools=tuple(tool.model_dump(exclude_none=True) for tool in tools),
            prompt_field="messages",
        )


@dataclass(frozen=True)
class Completion:
    """A request to /v1/chat/completions: what is asked, of which model, and how the answer is wanted."""

    model: str | None
    conversation: Conversation
    is_stream: bool
    includes_usage: bool


def parse_completion(body: bytes, thinks_by_default: bool) -> Completion:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    document = read_json(body, "model and messages")
    try:
        read = CompletionBody.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, CompletionBody) from None
    includes_usage = bool(read.stream_options and read.stream_options.include_usage)
    return Completion(read.model, read.conversation(thinks_by_default), bool(read.stream), includes_usage)


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
    return Turn(role, parts)


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
